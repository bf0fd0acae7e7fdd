"""Runs Redis servers of all kinds on this machine: with TLS, with users, with replicas and sentinels, as a cluster."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis
import trustme

from celery_argsize import StoreError
from celery_argsize.figures.counters import TaskStats
from celery_argsize.stores.base import Batch
from celery_argsize.stores.redis import RedisStore
from support.servers import ROOT, RedisServer, missing, redis_binary, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery_argsize.settings import Settings


class Authority:
    """A CA for tests. It writes its own certificate and those that it signs to files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca_file)

    def issue(self, *names: str, expired: bool = False) -> tuple[Path, Path]:
        """Make a certificate for *names*. Returns the files of the certificate and of its key."""
        now = dt.datetime.now(dt.timezone.utc)
        until = now - dt.timedelta(days=1) if expired else None
        made = self._ca.issue_cert(*names, not_before=now - dt.timedelta(days=9), not_after=until)
        stem = "-".join((*names, "expired" if expired else "valid")).replace(":", "_")
        certificate, key = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(key)
        return certificate, key


class TlsServer(RedisServer):
    """A redis-server whose only port speaks TLS."""

    def __init__(
        self, folder: Path, authority: Authority, *options: str, names: tuple[str, ...] = (), **made: Any
    ) -> None:
        super().__init__(folder)
        self.authority = authority
        certificate, key = authority.issue(*(names or ("localhost", "127.0.0.1")), **made)
        self.options = (
            *("--port", "0", "--tls-port", str(self.port), "--tls-cert-file", str(certificate)),
            *("--tls-key-file", str(key), "--tls-ca-cert-file", str(authority.ca_file), "--tls-replication", "yes"),
            *(options or ("--tls-auth-clients", "no")),
        )

    @property
    def url(self) -> str:
        return f"rediss://localhost:{self.port}/0"

    def start(self, *more: str, ready: bool = True) -> TlsServer:
        super().start(*more, ready=False)
        process = self.process
        assert process is not None
        if ready:
            wait_until(lambda: process.poll() is not None or self._answers(), what="redis-server with TLS")
        if process.poll() is not None and "Bad directive" in (self.folder / "redis.log").read_text():
            missing("a redis-server that speaks TLS")
        return self

    def client(self, **options: Any) -> redis.Redis:
        ours = {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
        if "optional" not in self.options and "no" not in self.options[-1:]:
            certificate, key = self.authority.issue("the-test")
            ours |= {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
        return redis.Redis.from_url(self.url, **{**ours, **options})


class Sentinels:
    """A primary, its replica, and one sentinel that needs no other to agree."""

    NAME = "mymaster"

    def __init__(self, folder: Path, *options: str, sentinel_options: str = "") -> None:
        folders = [folder / name for name in ("first", "second", "sentinel")]
        for subfolder in folders:
            subfolder.mkdir()
        self.options = options = ("--repl-diskless-sync-delay", "0", *options)
        self.first = RedisServer(folders[0], *options)
        self.second = RedisServer(folders[1], *options, "--replicaof", "127.0.0.1", str(self.first.port))
        self.sentinel = SentinelServer(folders[2], self.NAME, self.first.port, sentinel_options)

    @property
    def url(self) -> str:
        return f"sentinel://127.0.0.1:{self.sentinel.port}/0?master_name={self.NAME}"

    def start(self) -> Sentinels:
        for server in (self.first, self.second, self.sentinel):
            server.start()
        with self.sentinel.client() as client:
            wait_until(lambda: client.execute_command("SENTINEL REPLICAS", self.NAME), what="the sentinel's view")
        with self.second.client() as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", what="the replica")
        return self

    @property
    def nodes(self) -> list[RedisServer]:
        return [self.first, self.second, self.sentinel]

    def primary_port(self) -> int:
        with self.sentinel.client() as client:
            return int(client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self.NAME)[1])

    def stop(self) -> None:
        for server in (self.sentinel, self.second, self.first):
            server.stop()


class SentinelServer(RedisServer):
    """A sentinel that watches one primary on this machine."""

    def __init__(self, folder: Path, name: str, primary: int, more: str) -> None:
        super().__init__(folder)
        self.config = (
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor {name} 127.0.0.1 {primary} 1\n"
            # a busy machine may take a second for an answer
            f"sentinel down-after-milliseconds {name} 2000\nsentinel failover-timeout {name} 3000\n{more}\n"
        )

    def start(self, *more: str, ready: bool = True) -> SentinelServer:
        file = self.folder / "sentinel.conf"
        file.write_text(self.config)
        with (self.folder / "redis.log").open("ab") as log:
            command = [redis_binary(), str(file), "--sentinel", *more]
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        if ready:
            wait_until(self._answers, what="the sentinel")
        return self


class Cluster:
    """A cluster of three primaries that share all slots."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.nodes: list[RedisServer] = []
        for number in range(3):
            (folder / f"node-{number}").mkdir()
            server = RedisServer(folder / f"node-{number}")
            server.options = ("--cluster-enabled", "yes", *options)
            self.nodes.append(server)

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def start(self) -> Cluster:
        for node in self.nodes:
            node.start()
        edges = [0, 5461, 10923, 16384]
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                client.execute_command("CLUSTER ADDSLOTS", *range(edges[number], edges[number + 1]))
                for other in self.nodes[:number]:
                    client.execute_command("CLUSTER MEET", "127.0.0.1", other.port)
        for node in self.nodes:
            with node.client() as client:
                wait_until(lambda: client.cluster("INFO")["cluster_state"] == "ok", what="the cluster")
                wait_until(lambda: client.cluster("INFO")["cluster_known_nodes"] == "3", what="all nodes")
        return self

    def clients(self, name: str) -> int:
        """Number of connections with this *name* on all nodes."""
        count = 0
        for node in self.nodes:
            with node.client() as client:
                count += sum(connection["name"] == name for connection in client.client_list())
        return count

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


def documented_acl(user: str) -> list[str]:
    """The words after ACL SETUSER for *user* in docs/redis-schema.md. The password there is PASSWORD."""
    text = (ROOT / "docs" / "redis-schema.md").read_text(encoding="utf-8")
    lines = re.findall(rf"^ACL SETUSER ({re.escape(user)} .+)$", text, re.MULTILINE)
    assert len(lines) == 1, f"one line for {user}"
    return str(lines[0]).split()


def add_user(client: redis.Redis, user: str, *more: str) -> None:
    """Give *user* exactly the rights that are documented, and *more*."""
    name, *rights = documented_acl(user)
    execute: Any = client.execute_command
    execute("ACL SETUSER", name, "reset", *rights, *more)


def as_user(url: str, user: str) -> str:
    """*url* with the name and password of a documented user."""
    return url.replace("://", f"://{user}:PASSWORD@")


@contextmanager
def started(*servers: Any) -> Iterator[None]:
    """Run *servers* for as long as the ``with`` block lasts."""
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
            server.start()
        yield


def batch(sequence: int, writer: str = "w") -> Batch:
    return Batch(writer, sequence, {"scan": TaskStats({"count": 1}, {})})


def written(settings: Settings) -> int:
    """Write one run over a new connection. Returns the number of runs that are stored then."""
    with closing(RedisStore(settings)) as store:
        store.apply(batch(1, writer=str(time.monotonic_ns())))
        return store.read().tasks["scan"].counts["count"]


def refusal(settings: Settings) -> str:
    """The message of the error that reading raises."""
    with closing(RedisStore(settings)) as store, pytest.raises(StoreError) as caught:
        store.read()
    assert "\n" not in str(caught.value)
    return str(caught.value)
