"""Behind sentinels and in a cluster, on real ones: failovers, slots that move, and how many connections there are."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from redis import exceptions
from support.counting import Counting
from support.redis_kinds import (
    Authority,
    Cluster,
    Sentinels,
    TlsServer,
    as_user,
    batch,
    refusal,
    started,
    written,
)
from support.servers import RedisServer, free_port, redis_binary, stop, wait_until

from celery_argsize import StoreError
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import Measurement, Part
from celery_argsize.settings import Settings
from celery_argsize.stores import connection
from celery_argsize.stores.redis import RedisStore, apps_in
from celery_argsize.worker.flusher import Flusher

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


# -- sentinels ---------------------------------------------------------------------------------------------------------


def added_up_through(servers: Sentinels, disturb: Callable[[], None]) -> tuple[int, int]:
    """Runs that were measured while *disturb* happened, and runs that Redis counts in the end."""
    settings = Settings(redis_url=servers.url, flush_interval=0.05, wait_replicas=1, app_name=str(time.monotonic_ns()))
    counting, store = Counting(settings, children=0), RedisStore(settings)
    flusher = Flusher(counting.counters, counting.notes, store, settings, "w")
    going, sent = threading.Event(), [0]

    def work() -> None:
        while not going.wait(0.002):
            counting.put(Measurement("scan", "id", Part(Size(1, 1)), Part(None), time.time()))
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

        def accepted() -> bool:
            with sentinels.sentinel.client() as client, suppress(exceptions.ResponseError):  # it has no replica yet
                return bool(client.execute_command("SENTINEL FAILOVER", sentinels.NAME))
            return False

        wait_until(accepted, what="a failover")
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

            assert wait_until(works) == 1
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
    with started(server):
        for url in (server.url, server.url.replace("redis:", "redis+cluster:")):
            assert refusal(Settings(redis_url=url)).endswith("slots have no node; see CLUSTER INFO")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), "still loading its data; this heals"),
        (exceptions.MasterDownError("Link with MASTER is down"), "its primary is being replaced; this heals by itself"),
        (exceptions.ResponseError("TRYAGAIN Multiple keys request during rehashing of slot"), "on its way to another"),
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
        assert written(Settings(redis_url=url, redis_ssl_ca_certs=ca)) == 1
        assert "CA known here" in refusal(Settings(redis_url=url))
