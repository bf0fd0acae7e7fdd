"""Which Redis is meant and how it is connected to, on real ones: TLS, users, socket files, sentinels, a cluster."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import redis
from redis import exceptions
from redis.cluster import REDIS_ALLOWED_KEYS
from redis_kinds import Authority, Cluster, Sentinels, TlsServer, add_user, as_user, cluster_port, started
from support import RedisServer, free_port, redis_binary, stop, wait_until

from celery_argsize import ConfigError, StoreError
from celery_argsize.config import Settings, resolve
from celery_argsize.flusher import Flusher
from celery_argsize.handoff import LocalHandoff
from celery_argsize.measure import Size
from celery_argsize.stats import Measurement, Part, Rules, TaskStats
from celery_argsize.stores import connection
from celery_argsize.stores.base import Batch
from celery_argsize.stores.redis import RedisStore, apps_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def batch(sequence: int, writer: str = "w") -> Batch:
    return Batch(writer, sequence, {"scan": TaskStats({"count": 1}, {})})


def written(settings: Settings) -> int:
    """How many runs there are after one more was written, over a connection of its own."""
    with closing(RedisStore(settings)) as store:
        store.apply(batch(1, writer=str(time.monotonic_ns())))
        return store.read().tasks["scan"].counts["count"]


def refusal(settings: Settings) -> str:
    """What is said when nothing can be read."""
    with closing(RedisStore(settings)) as store, pytest.raises(StoreError) as caught:
        store.read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[TlsServer]:
    server = TlsServer(tmp_path_factory.mktemp("tls"), authority)
    with started(server):
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    nodes = Cluster(tmp_path_factory.mktemp("cluster"))
    with started(nodes):
        for node in nodes.nodes:
            with node.client() as client:
                more = ["+info"] if redis.__version__.startswith("5.0") else []
                add_user(client, "argsize", "+command", "+cluster|slots", *more)
        yield nodes


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    servers = Sentinels(tmp_path_factory.mktemp("sentinels"))
    with started(servers):
        yield servers


# -- TLS ---------------------------------------------------------------------------------------------------------------


def test_tls_takes_its_ca_from_a_setting_or_the_url(tls: TlsServer) -> None:
    ca = str(tls.authority.ca_file)
    before = written(Settings(redis_url=tls.url, redis_ssl_ca_certs=ca))
    assert written(Settings(redis_url=f"{tls.url}?ssl_ca_certs={quote(ca, safe='')}")) == before + 1
    of_app = {"ssl_ca_certs": ca, "ssl_cert_reqs": "CERT_REQUIRED"}
    assert written(Settings(redis_url=tls.url, redis_options=of_app)) == before + 2


def test_an_unknown_ca_is_refused_unless_certificates_are_not_checked(tls: TlsServer) -> None:
    said = refusal(Settings(redis_url=tls.url))
    assert said.endswith("its certificate is not signed by a CA known here; set redis_ssl_ca_certs to its CA")
    assert written(Settings(redis_url=tls.url, redis_ssl_cert_reqs="none"))
    assert written(Settings(redis_url=f"{tls.url}?ssl_cert_reqs=CERT_NONE"))
    # The URL is the more specific.
    assert "CA known here" in refusal(
        Settings(redis_url=f"{tls.url}?ssl_cert_reqs=required", redis_ssl_cert_reqs="none")
    )


def test_a_certificate_for_another_host_is_refused_unless_names_are_not_checked(
    tmp_path: Path, authority: Authority
) -> None:
    server = TlsServer(tmp_path, authority, names=("redis.example",))
    ours: dict[str, Any] = {"redis_url": server.url, "redis_ssl_ca_certs": str(authority.ca_file)}
    with started(server):
        assert "its certificate is for another host name" in refusal(Settings(**ours))
        assert "its certificate is for another host name" in refusal(
            Settings(**{**ours, "redis_url": server.url.replace("localhost", "127.0.0.1")})
        )
        assert written(Settings(**ours, redis_ssl_check_hostname=False))
        assert written(Settings(**{**ours, "redis_url": server.url + "?ssl_check_hostname=no"}))


def test_an_expired_certificate_is_refused(tmp_path: Path, authority: Authority) -> None:
    server = TlsServer(tmp_path, authority, expired=True)
    with started(server):
        said = refusal(Settings(redis_url=server.url, redis_ssl_ca_certs=str(authority.ca_file)))
    assert said.endswith("its certificate has expired; renew that")


def test_a_client_certificate_is_shown_where_one_is_wanted(tmp_path: Path, authority: Authority) -> None:
    server = TlsServer(tmp_path, authority, "--tls-auth-clients", "yes")
    certificate, key = map(str, authority.issue("worker.example"))
    with started(server):
        ours: dict[str, Any] = {"redis_url": server.url, "redis_ssl_ca_certs": str(authority.ca_file)}
        assert "set redis_ssl_certfile and redis_ssl_keyfile" in refusal(Settings(**ours))
        assert written(Settings(**ours, redis_ssl_certfile=certificate, redis_ssl_keyfile=key))
        wrong = refusal(Settings(**ours, redis_ssl_certfile=certificate, redis_ssl_keyfile=certificate))
        assert "a certificate or key file is not what it should be" in wrong


@pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_a_file_that_is_not_there_is_named_with_its_setting(tmp_path: Path, name: str) -> None:
    missing = str(tmp_path / "none.pem")
    ours: dict[str, Any] = {f"redis_{name}": missing}
    with pytest.raises(ConfigError, match=f"redis_{name} = .*none.pem' cannot work: No such file"):
        RedisStore(Settings(redis_url="rediss://localhost", **ours))
    with pytest.raises(ConfigError, match=f"^{name} = .*none.pem' cannot work: No such file"):
        RedisStore(Settings(redis_url=f"rediss://localhost?{name}={missing}"))


def test_who_speaks_plain_to_a_tls_port_or_tls_to_a_plain_one_is_told(
    tls: TlsServer, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TIMEOUT", 0.5)  # a plain Redis may take TLS for the beginning of a command
    assert "write rediss:// in redis_url" in refusal(Settings(redis_url=tls.url.replace("rediss", "redis")))
    said = refusal(resolve({"redis_url": redis_url, "require_redis_ssl": True}, environ={}))
    assert said.endswith("Does that port speak TLS?") or "it speaks no TLS at that port" in said


def test_redis_url_and_require_redis_ssl_as_hosts_set_them_are_enough(tls: TlsServer) -> None:
    environ = {
        "REDIS_URL": tls.url.replace("rediss", "redis"),
        "REQUIRE_REDIS_SSL": "true",
        "CELERY_ARGSIZE_REDIS_SSL_CA_CERTS": str(tls.authority.ca_file),
    }
    settings = resolve({}, environ=environ)
    assert settings.redis_url == tls.url
    assert written(settings)


# -- addresses and names -----------------------------------------------------------------------------------------------


def test_a_socket_file_and_a_database_number(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    server = RedisServer(tmp_path, "--unixsocket", str(path))
    with started(server):
        for url in (f"unix://{path}?db=3", f"redis+socket://{path}?virtual_host=/3", f"socket://{path}?db=3"):
            written(Settings(redis_url=url, require_redis_ssl=True))
        with server.client() as client:
            client.execute_command("ACL SETUSER", "narrow", "on", ">pass", "~celery-argsize:*", "+@all")
        assert written(Settings(redis_url=f"unix://narrow:pass@{path}?db=3")) == 4
        assert written(Settings(redis_url=server.url.replace("/0", "/3"))) == 5
        assert written(Settings(redis_url=f"{server.url}?db=3")) == 6
        with server.client() as client:
            assert client.info("keyspace").keys() == {"db3"}
        assert "it has no database of that number" in refusal(Settings(redis_url=server.url.replace("/0", "/99")))
    said = refusal(Settings(redis_url=f"unix://{tmp_path}/none.sock"))
    assert "there is no such socket" in said


def test_a_password_may_have_any_character(redis_server: RedisServer, redis_url: str) -> None:
    user, password = "us:er@ü", "p@ss:w/ö#?%&+ 1"
    with redis_server.client() as client:
        client.execute_command("ACL SETUSER", user, "on", ">" + password, "~*", "+@all")
        client.config_set("requirepass", password)
    try:
        encoded = quote(password, safe="")
        address = f"127.0.0.1:{redis_server.port}/0"
        before = written(Settings(redis_url=f"redis://{quote(user, safe='')}:{encoded}@{address}"))
        assert written(Settings(redis_url=f"redis://:{encoded}@{address}")) == before + 1
        assert written(Settings(redis_url=redis_url)) == before + 2
        with pytest.raises(ConfigError, match="percent-encoded: %23 ") as caught:
            RedisStore(Settings(redis_url=f"redis://:{password}@{address}"))
        assert "ss:w" not in str(caught.value)
    finally:
        with redis_server.client(password=password) as client:
            client.config_set("requirepass", "")
            client.execute_command("ACL DELUSER", user)


# -- rights ------------------------------------------------------------------------------------------------------------


def test_a_user_who_may_only_report_cannot_write_or_reset(redis_server: RedisServer, redis_url: str) -> None:
    assert written(Settings(redis_url=redis_url)) == 1
    with redis_server.client() as client:
        add_user(client, "argsize-report")
    settings = Settings(redis_url=as_user(redis_server.url, "argsize-report"))
    with closing(RedisStore(settings)) as store:
        assert store.read().tasks["scan"].counts["count"] == 1
        assert store.read_origins() == {}
        assert apps_in(settings) == ["celery"]
        for refused in (store.reset, lambda: store.reset("scan"), lambda: store.apply(batch(2))):
            with pytest.raises(StoreError, match=r"its user may not .*; docs/redis-schema\.md has the rights"):
                refused()
    assert written(Settings(redis_url=redis_url)) == 2, "nothing was forgotten, and nothing written"


def test_the_command_that_a_user_may_not_run_is_named(redis_server: RedisServer, redis_url: str) -> None:
    with redis_server.client() as client:
        client.execute_command("ACL SETUSER", "narrow", "reset", "on", ">PASSWORD", "~*", "+@all", "-evalsha")
        client.execute_command("ACL SETUSER", "elsewhere", "reset", "on", ">PASSWORD", "~other:*", "+@all")
    assert "its user may not run evalsha" in refusal(Settings(redis_url=as_user(redis_server.url, "narrow")))
    assert "its user may not use keys of this prefix" in refusal(
        Settings(redis_url=as_user(redis_server.url, "elsewhere"))
    )
    assert redis_url


# -- sentinels ---------------------------------------------------------------------------------------------------------


def added_up_through(servers: Sentinels, disturb: Callable[[], None]) -> tuple[int, int]:
    """Runs that were measured while *disturb* happened, and runs that Redis counts in the end."""
    settings = Settings(redis_url=servers.url, flush_interval=0.05, wait_replicas=1, app_name=str(time.monotonic_ns()))
    handoff, store = LocalHandoff(Rules(1, (1,)), 10), RedisStore(settings)
    flusher, going, sent = Flusher(handoff, store, settings, "w"), threading.Event(), [0]

    def work() -> None:
        while not going.wait(0.002):
            handoff.put(Measurement("scan", "id", Part(Size(1, 1)), Part(None), time.time()))
            sent[0] += 1

    flusher.start()
    worker = threading.Thread(target=work)
    worker.start()
    try:
        wait_until(lambda: store.where and sent[0] > 100, what="work")
        disturb()
        time.sleep(0.5)  # and some work on the new primary
    finally:
        going.set()
        worker.join()
        left = flusher.stop(25)
    assert left == 0
    with closing(RedisStore(settings)) as reader:
        return sent[0], reader.read().tasks["scan"].counts["count"]


def test_a_forced_failover_loses_nothing_and_counts_nothing_twice(sentinels: Sentinels) -> None:
    def fail_over() -> None:
        before = sentinels.primary_port()
        with sentinels.sentinel.client() as client:
            client.execute_command("SENTINEL FAILOVER", sentinels.NAME)
        wait_until(lambda: sentinels.primary_port() != before, what="another primary")
        # As the sentinel does by itself, after 10 s.
        demoted = next(server for server in (sentinels.first, sentinels.second) if server.port == before)
        with demoted.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", sentinels.primary_port())

    sent, counted = added_up_through(sentinels, fail_over)
    assert counted == sent
    settle(sentinels)


def test_a_killed_primary_loses_nothing_and_counts_nothing_twice(sentinels: Sentinels) -> None:
    def kill() -> None:
        port = sentinels.primary_port()
        killed, other = sorted((sentinels.first, sentinels.second), key=lambda server: server.port != port)
        assert killed.process is not None
        stop(killed.process, signal.SIGKILL)
        wait_until(lambda: sentinels.primary_port() == other.port, what="another primary")
        killed.options = (*sentinels.options, "--replicaof", "127.0.0.1", str(other.port))
        killed.start()

    sent, counted = added_up_through(sentinels, kill)
    assert counted == sent
    settle(sentinels)


def settle(servers: Sentinels) -> None:
    """Wait for the primary to have its replica, as the next test takes it to have."""

    def replicated() -> bool:
        ports = (servers.first, servers.second)
        with next(server for server in ports if server.port == servers.primary_port()).client() as client:
            replication = client.info("replication")
        return bool(replication["role"] == "master" and replication["connected_slaves"])

    wait_until(replicated, what="a replica of the new primary")


def test_sentinels_with_users_and_tls(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.issue("localhost", "127.0.0.1")
    primary = TlsServer(tmp_path, authority)
    port = free_port()
    (tmp_path / "sentinel").mkdir()
    file = tmp_path / "sentinel" / "sentinel.conf"
    file.write_text(
        f"port 0\ntls-port {port}\ntls-cert-file {certificate}\ntls-key-file {key}\n"
        f"tls-ca-cert-file {authority.ca_file}\ntls-auth-clients no\ntls-replication yes\nbind 127.0.0.1\n"
        f"dir {tmp_path / 'sentinel'}\nsentinel monitor mymaster 127.0.0.1 {primary.port} 1\n"
        "user default off\nuser argsize on >sesame +sentinel|masters +client|setname\n"
    )
    with started(primary), (tmp_path / "sentinel.log").open("ab") as log:
        process = subprocess.Popen([redis_binary(), str(file), "--sentinel"], stdout=log, stderr=log)
        try:
            url = f"rediss+sentinel://127.0.0.1:{port}?master_name=mymaster&sentinel_username=argsize"
            ours: dict[str, Any] = {"redis_ssl_ca_certs": str(authority.ca_file)}
            with pytest.raises(StoreError, match="no sentinel there names a primary"):
                RedisStore(Settings(redis_url=f"{url}&sentinel_password=wrong", **ours)).read()

            def works() -> int:
                try:
                    return written(Settings(redis_url=f"{url}&sentinel_password=sesame", **ours))
                except StoreError:
                    return 0

            assert wait_until(works, timeout=10) == 1
        finally:
            stop(process, signal.SIGKILL)


def test_where_no_sentinel_answers_or_knows_the_name_is_told(sentinels: Sentinels) -> None:
    for url in (
        sentinels.url.replace("mymaster", "another"),
        f"sentinel://127.0.0.1:{free_port()},127.0.0.1:{free_port()}?master_name=mymaster",
    ):
        assert refusal(Settings(redis_url=url)).endswith(
            "no sentinel there names a primary; are they running, and is master_name right?"
        )
    several = f"sentinel://127.0.0.1:{free_port()};{sentinels.url}"
    assert written(Settings(redis_url=several, app_name="one of two sentinels")) == 1


# -- a cluster ---------------------------------------------------------------------------------------------------------


def slot_owner(cluster: Cluster, key: str) -> RedisServer:
    with cluster.nodes[0].client() as client:
        slot = int(client.execute_command("CLUSTER KEYSLOT", key))
    return cluster.nodes[min(slot * 3 // 16384, 2)]


def test_a_cluster_counts_right_over_one_connection(cluster: Cluster) -> None:
    settings = Settings(redis_url=as_user(cluster.url, "argsize"), app_name="music")
    with closing(RedisStore(settings)) as store:
        for sequence in (1, 2, 2, 1, 3):
            store.apply(batch(sequence))
        store.read()
        assert store.read().tasks["scan"].counts["count"] == 3
        with ExitStack() as stack:
            for name in ("billing", "mail", "orders"):  # in other slots
                other = stack.enter_context(closing(RedisStore(replace(settings, app_name=name))))
                other.apply(batch(1))
            assert cluster.clients(connection.CLIENT_NAME) == 4, "one for each store, wherever its keys are"
        assert apps_in(settings) == ["billing", "mail", "music", "orders"]
        assert store.reset() == 1
        assert store.read().tasks == {}
    with closing(RedisStore(replace(settings, wait_replicas=1))) as store:
        with pytest.raises(StoreError, match="0 of wait_replicas = 1"):
            store.apply(batch(9))
        store.reset()
    assert cluster.clients(connection.CLIENT_NAME) == 0
    keys: dict[str, set[int]] = {}
    for number, node in enumerate(cluster.nodes):
        with node.client(decode_responses=True) as client:
            for key in client.keys("celery-argsize:{*"):
                keys.setdefault(key.split("}")[0], set()).add(number)
    assert len(keys) == 4
    assert all(len(nodes) == 1 for nodes in keys.values()), "all keys of an app are in one slot"


def test_a_slot_that_moves_is_followed(cluster: Cluster) -> None:
    settings = Settings(redis_url=as_user(cluster.url, "argsize"), app_name="moving")
    with closing(RedisStore(settings)) as store:
        store.apply(batch(1))
        source = slot_owner(cluster, settings.base)
        target = next(node for node in cluster.nodes if node is not source)
        with source.client(decode_responses=True) as old, target.client(decode_responses=True) as new:
            slot = old.execute_command("CLUSTER KEYSLOT", settings.base)
            ids = old.execute_command("CLUSTER MYID"), new.execute_command("CLUSTER MYID")
            new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
            old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
            keys = old.execute_command("CLUSTER GETKEYSINSLOT", slot, 100)
            old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            for client in (new, old):
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[1])
        store.apply(batch(2))
        store.apply(batch(2))
        assert store.read().tasks["scan"].counts["count"] == 2
        assert cluster.clients(connection.CLIENT_NAME) == 1, "that to the node before is closed"


def test_a_cluster_taken_for_a_server_and_a_server_for_a_cluster(cluster: Cluster, redis_server: RedisServer) -> None:
    settings = Settings(redis_url=cluster.url, app_name="music")
    others = [node for node in cluster.nodes if node is not slot_owner(cluster, settings.base)]
    said = refusal(Settings(redis_url=others[0].url, app_name="music"))
    assert said.endswith("it is part of a cluster; write redis+cluster:// in redis_url")
    assert "it is no cluster" in refusal(Settings(redis_url=redis_server.url.replace("redis:", "redis+cluster:")))
    nobody = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
    assert "no connection; is it running" in refusal(Settings(redis_url=nobody))
    assert written(Settings(redis_url=f"{nobody},127.0.0.1:{others[0].port}", app_name="many nodes named")) == 1


def test_a_cluster_without_its_slots_is_told_apart_from_one_that_is_away(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--cluster-enabled", "yes")
    server.port = cluster_port()
    with started(server):
        for url in (server.url, server.url.replace("redis:", "redis+cluster:")):
            assert refusal(Settings(redis_url=url)).endswith("slots have no node; see CLUSTER INFO")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), "still loading its data; this heals"),
        (exceptions.MasterDownError("Link with MASTER is down"), "its primary is being replaced; this heals by itself"),
        (exceptions.ResponseError("BUSY Redis is busy running a script."), "another client's script keeps it busy"),
        (exceptions.ResponseError("ERR {odd} thing\nof two lines"), "ResponseError: ERR {odd} thing of two lines"),
    ],
)
def test_an_error_is_one_line_that_names_the_fix(error: Exception, said: str) -> None:
    line = connection.explain("read from", "redis://h/0", error)
    assert line.startswith("cannot read from Redis at redis://h/0: ")
    assert said in line


def test_a_cluster_with_tls(tmp_path: Path, authority: Authority) -> None:
    server = TlsServer(
        tmp_path, authority, "--cluster-enabled", "yes", "--tls-cluster", "yes", "--tls-auth-clients", "no"
    )
    with started(server):
        with server.client() as client:
            client.execute_command("CLUSTER ADDSLOTS", *range(16384))
            wait_until(lambda: client.cluster("INFO")["cluster_state"] == "ok", what="the cluster")
        url = server.url.replace("rediss:", "rediss+cluster:")
        ca = str(authority.ca_file)
        if "ssl_check_hostname" not in REDIS_ALLOWED_KEYS:
            with pytest.raises(ConfigError, match="redis-py has no ssl_check_hostname for clusters; install redis>=6"):
                RedisStore(Settings(redis_url=url))
            url += "?ssl_check_hostname=no"
        assert written(Settings(redis_url=url, redis_ssl_ca_certs=ca)) == 1
        assert "CA known here" in refusal(Settings(redis_url=url))


# -- when something breaks ---------------------------------------------------------------------------------------------


def cut_off(server: RedisServer) -> int:
    """Close our connections to *server*; how many there were."""
    with server.client() as client:
        ours = [one["id"] for one in client.client_list() if one["name"] == connection.CLIENT_NAME]
        return sum(client.client_kill_filter(_id=number) for number in ours)


@pytest.mark.parametrize("kind", ["plain", "socket file", "tls", "sentinels", "cluster"])
def test_a_connection_that_was_closed_while_idle_is_replaced_without_an_error(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings: dict[str, Any] = {"app_name": f"idle {kind}"}
    if kind in {"plain", "socket file"}:
        running = RedisServer(tmp_path, "--unixsocket", str(tmp_path / "redis.sock"))
        request.addfinalizer(running.stop)
        servers: list[RedisServer] = [running.start()]
        settings["redis_url"] = running.url if kind == "plain" else f"unix://{tmp_path / 'redis.sock'}"
    else:
        shared = request.getfixturevalue(kind)
        settings["redis_url"] = shared.url
        servers = [shared] if kind == "tls" else shared.nodes
    if kind == "tls":
        settings["redis_ssl_ca_certs"] = str(shared.authority.ca_file)
    with closing(RedisStore(Settings(**settings))) as store:
        for sequence in (1, 2, 3):
            store.apply(batch(sequence))
            assert sum(map(cut_off, servers)) == (2 if kind == "sentinels" else 1), "connections of a worker"
        assert store.read().tasks["scan"].counts["count"] == 3


def test_after_an_error_there_is_a_new_connection(sentinels: Sentinels) -> None:
    """So that a server which only refuses, as a primary that was demoted does, is not asked for ever."""
    primary = next(server for server in sentinels.nodes if server.port == sentinels.primary_port())
    with (
        closing(RedisStore(Settings(redis_url=sentinels.url, app_name="refused"))) as store,
        primary.client() as client,
    ):
        store.apply(batch(1))
        client.config_set("min-replicas-to-write", "5")
        try:
            with pytest.raises(StoreError, match="too few of its replicas"):
                store.apply(batch(2))
        finally:
            client.config_set("min-replicas-to-write", "0")
        assert sum(map(cut_off, sentinels.nodes)) == 0
        store.apply(batch(2))
        assert store.read().tasks["scan"].counts["count"] == 2


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "sentinel"])
def test_who_does_not_answer_is_asked_once(scheme: str) -> None:
    asked: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            while True:
                try:
                    caller, _ = listener.accept()
                except OSError:
                    return
                asked.append(time.monotonic())
                caller.recv(100)
                caller.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}" + "?master_name=m" * (scheme == "sentinel")
            refusal(Settings(redis_url=url))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"min-replicas-to-write": "1"}, "too few of its replicas are up to date"),
        ({"REPLICAOF": "127.0.0.1 1"}, "it is a read-only replica; give the URL of the primary"),
        ({"maxclients": "1"}, "it has no place for another client"),
        ({"requirepass": "sesame"}, "it wants a user name and password"),
        ({"save": "3600 1", "BGSAVE": ""}, "it cannot save to its disk"),
        ({"SET": "celery-argsize:{celery}:names text"}, "a key of ours holds something else"),
        ({"SET": "celery-argsize:apps text"}, "a key of ours holds something else"),
        (
            {"SET": "celery-argsize:{celery}:task:scan text"},
            "its key celery-argsize:{celery}:task:scan is none of ours",
        ),
    ],
)
def test_what_a_server_refuses_is_said_with_the_fix(tmp_path: Path, config: dict[str, str], said: str) -> None:
    (tmp_path / "server").mkdir()
    server = RedisServer(tmp_path / "server")
    with started(server), server.client() as client:
        for name, value in config.items():
            if name == "BGSAVE":
                shutil.rmtree(server.folder)
                client.execute_command("BGSAVE")
                wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", what="a failed save")
            elif name.isupper():
                client.execute_command(name, *value.split())
            else:
                client.config_set(name, value)
        with closing(RedisStore(Settings(redis_url=server.url))) as store, pytest.raises(StoreError) as caught:
            store.apply(batch(1))
        assert said in str(caught.value)


def test_a_server_that_quotes_what_it_does_not_know_gives_no_password_away(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--requirepass", "sesame", "--rename-command", "HELLO", "nobody")
    server.password = "sesame"
    server.start()
    try:
        settings = Settings(redis_url=server.url.replace("://", "://:sesame@"))
        said = refusal(settings)
        assert said.endswith("it does not know RESP3; add ?protocol=2 to the URL")
        assert "sesame" not in said
        assert written(replace(settings, redis_url=f"{settings.redis_url}?protocol=2")) == 1
    finally:
        server.stop()


def test_an_unknown_host_and_a_wrong_password_are_told_without_secrets(redis_server: RedisServer) -> None:
    assert "its host name is not known here" in refusal(Settings(redis_url="redis://:sesame@no-such-host.invalid/0"))
    address = f"127.0.0.1:{redis_server.port}"
    said = refusal(Settings(redis_url=f"redis://nobody:sesame@{address}"))
    assert "it wants a user name and password other than the URL's" in said
    assert "sesame" not in said
    assert "take it out" in refusal(Settings(redis_url=f"redis://:sesame@{address}?protocol=2"))


def test_an_option_that_redis_py_does_not_know_is_refused_before_anything_connects() -> None:
    for url in ("redis://h?colour=red", "redis://h?ssl_ca_certs=ca.pem", "sentinel://h?master_name=m&colour=red"):
        with pytest.raises(ConfigError, match="redis_url = .* cannot work"):
            RedisStore(Settings(redis_url=url))


@pytest.mark.parametrize("kind", ["tls", "sentinels", "cluster"])
def test_the_thread_that_connects_imports_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    """A fork while a thread imports would leave that import locked in the child."""
    server = request.getfixturevalue(kind)
    ca = {"redis_ssl_ca_certs": str(server.authority.ca_file)} if kind == "tls" else {}
    code = f"""
import sys, threading
from celery_argsize.config import Settings
from celery_argsize.stores.base import Batch
from celery_argsize.stores.redis import RedisStore
from celery_argsize.stats import TaskStats
store = RedisStore(Settings(redis_url={server.url!r}, app_name="imports", **{ca!r}))
store.prepare()
before = set(sys.modules)
batch = Batch("w", 1, {{"scan": TaskStats({{"count": 1}}, {{}})}})
thread = threading.Thread(target=store.apply, args=(batch,))
thread.start()
thread.join()
print(store.read().tasks["scan"].counts["count"], sorted(set(sys.modules) - before))
store.close()
"""
    env = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert (done.stdout, done.stderr) == ("1 []\n", "")
