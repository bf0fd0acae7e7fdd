"""What `argsize doctor` says of how real Redis servers are reached: TLS, users, sentinels, and none at all."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kombu import Connection, Queue
from support.redis_doctor import SANE, alarms, app_on, holding_up, looked, only, server_with
from support.redis_kinds import Authority, Cluster, Sentinels, TlsServer, add_user, as_user, started
from support.servers import free_port

from celery_argsize.connections.budget import connection_budget
from celery_argsize.doctor.facts import Scope
from celery_argsize.doctor.look.redis import look_at_redis
from celery_argsize.doctor.redis_facts import ServerFacts

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_the_wrong_ca_shows_with_the_lines_that_mend_it(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    with server_with_tls(tmp_path) as server:
        wrong = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": str(other.ca_file)}
        found = looked(app_on(server.url, broker_use_ssl=wrong, redis_backend_use_ssl=wrong))
        reachable = only(found, "reachable")
        assert reachable.verdict == "fail"
        assert "not signed by a CA known here" in reachable.reason
        assert "app.conf.broker_use_ssl = {" in reachable.fix
        assert only(found, "tls").verdict == "ok", "it is checked, which is why it fails"
        right = {**wrong, "ssl_ca_certs": str(server.authority.ca_file)}
        found = looked(app_on(server.url, broker_use_ssl=right, redis_backend_use_ssl=right))
        assert alarms({name: said for name, said in found.items() if name != "persistence"}) == {}


@contextmanager
def server_with_tls(folder: Path) -> Iterator[TlsServer]:
    server = TlsServer(folder, Authority(folder))
    with started(server):
        yield server


def test_tls_that_checks_no_certificate_is_told(tmp_path: Path) -> None:
    with server_with_tls(tmp_path) as server:
        alone = looked(app_on(server.url, f"{server.url}?ssl_cert_reqs=none", argsize_redis_ssl_cert_reqs="none"))
        assert only(alone, "reachable").verdict == "ok", "as it is for Celery"
        assert {one.verdict for one in alone["tls"]} == {"warn"}
        assert "kombu checks nothing for rediss:// unless told to" in alone["tls"][0].reason
        assert any("app.conf.redis_backend_use_ssl = {" in one.fix for one in alone["tls"])
        with Connection(server.url) as connection:
            assert connection.ssl == {"ssl_cert_reqs": ssl.CERT_NONE}, "which is so"


def test_plain_text_is_told_where_tls_is_required(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_on(redis_url)
    assert only(looked(app), "tls").verdict == "ok", "on this machine"
    monkeypatch.setenv("REQUIRE_REDIS_SSL", "true")
    found = looked(app)["tls"]
    assert any(one.verdict == "fail" and "travels in plain text" in one.reason for one in found)


def test_a_user_with_few_rights_leaves_open_what_it_may_not_see_and_the_fix_opens_it(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE) as server, server.client() as client:
        add_user(client, "argsize-report")
        url = as_user(server.url, "argsize-report")
        found = looked(None, redis_url=url)
        assert only(found, "reachable").verdict == "ok"
        assert {one.verdict for check in ("clients", "memory", "latency") for one in found[check]} == {"unknown"}
        execute: Any = client.execute_command
        execute("ACL", "SETUSER", "argsize-report", "+info")
        clients = only(looked(None, redis_url=url), "clients")
        assert clients.verdict == "ok", "without CLIENT LIST there is still a figure"
        execute(*only(found, "memory").fix.replace("NAME", "argsize-report").split())
        assert {*alarms(looked(None, redis_url=url))} == {"forecast"}, "there is no app"
        assert "PASSWORD" not in str(looked(None, redis_url=url))


def test_a_user_without_rights_to_keys_leaves_open_the_queues_only(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE) as server, server.client() as client:
        execute: Any = client.execute_command
        execute("ACL", "SETUSER", "few", "on", ">PASSWORD", "+ping", "+info", "+client", "+config|get", "+select")
        found = looked(app_on(as_user(server.url, "few")))
        assert set(alarms(found)) == {"queues", "results"}
        execute(*only(found, "queues").fix.replace("NAME", "few").split())
        assert alarms(looked(app_on(as_user(server.url, "few")))) == {}


def test_a_host_that_took_config_away_leaves_open_what_only_that_says(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE, "--rename-command", "CONFIG", "") as server:
        found = looked(app_on(server.url))
        assert set(alarms(found)) == {"persistence"}
        assert "no such command" in only(found, "persistence").reason


def test_a_redis_that_is_far_away_is_told(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE) as server:
        app = app_on(server.url)
        assert only(looked(app), "latency").verdict == "ok"
        with holding_up(server.port, "PING", 0.15) as slow:
            assert only(looked(None, redis_url=f"redis://127.0.0.1:{slow}"), "latency").verdict == "warn"


@pytest.mark.slow
def test_a_redis_that_is_very_far_away_answers_all_the_same(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE) as server:
        queues = [Queue(f"q{number}") for number in range(250)]
        with holding_up(server.port, "", 0.25) as slow:
            found = looked(app_on(f"redis://127.0.0.1:{slow}", task_queues=queues), seconds=9)
        assert set(alarms(found)) == {"latency"}
        assert only(found, "latency").verdict == "warn"
        assert "in 251 queues" in only(found, "queues").figure
        with holding_up(server.port, "", 0.25) as slow:
            found = looked(app_on(f"redis://127.0.0.1:{slow}"), seconds=3)
        assert only(found, "reachable").verdict == "ok"
        assert only(found, "latency").verdict == "warn", "what came in time is kept"
        assert only(found, "results").reason == "there was no time left to look at that"


#: As docs/doctor.md has them.
DOCUMENTED = Path(__file__).parents[3] / "docs" / "doctor.md"


def documented_rights() -> list[str]:
    text = " ".join(DOCUMENTED.read_text(encoding="utf-8").split())
    return text.partition("for the user's name: `")[2].partition("`")[0].split()


def test_the_documented_rights_are_enough_and_none_is_too_many(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE) as server, server.client() as client:
        execute: Any = client.execute_command
        rights = documented_rights()
        url = as_user(server.url, "few")
        app = app_on(url, url.replace("/0", "/1"))
        app_on(server.url).send_task("task_1")
        execute("SELECT", 1)
        client.set("celery-task-meta-a", "")
        for without in ("", *rights):
            execute("ACL", "SETUSER", "few", "reset", "on", ">PASSWORD", *(one for one in rights if one != without))
            (facts,) = look_at_redis(Scope(app))
            assert facts.missed.keys() == set() or without, facts.missed
            assert bool(facts.missed) == bool(without), without


def test_a_user_who_may_not_go_to_its_database_is_told_so(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE) as server, server.client() as client:
        execute: Any = client.execute_command
        execute("ACL", "SETUSER", "few", "on", ">PASSWORD", "+@all", "-select", "~*", "&*")
        found = only(looked(app_on(as_user(server.url, "few").replace("/0", "/1"))), "reachable")
        assert (found.verdict, "NOPERM" in found.reason) == ("fail", True)


def test_a_host_that_took_client_and_more_away_is_reached_all_the_same(tmp_path: Path) -> None:
    renamed = [word for name in ("CLIENT", "INFO", "SCAN") for word in ("--rename-command", name, "")]
    with server_with(tmp_path, *SANE, *renamed) as server:
        found = looked(app_on(server.url))
        assert {check for check, said in found.items() if said[0].verdict == "ok"} == {
            "reachable",
            "tls",
            "latency",
            "queues",
        }
        assert "warn" not in {one.verdict for said in found.values() for one in said}


@contextmanager
def quoting(*quoted: str) -> Iterator[int]:
    """A server that answers each command with an error which quotes it in such a way."""
    listener = socket.create_server(("127.0.0.1", 0))
    form = "".join(quoted)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    while said := client.recv(65_536):
                        words = [word for word in said.decode().split("\r\n")[2::2] if word]
                        client.sendall(f"-ERR {form.format(' '.join(words))}\r\n".encode())

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()


@pytest.mark.parametrize("form", ["unknown thing `{}`", "what is `{}`?", "you said: {}, which is no command"])
def test_a_password_that_a_server_quotes_is_not_told(form: str) -> None:
    with quoting(form) as port:
        for more in ("", "?protocol=2"):
            found = looked(None, redis_url=f"redis://me:hush%2Bhush@127.0.0.1:{port}/0{more}", seconds=3)
            assert only(found, "reachable").verdict == "fail"
            assert "hush" not in str(found)


def test_an_option_that_cannot_work_leaves_open_only_what_needs_it(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE) as server:
        for options in (
            {"visibility_timeout": "1h"},
            {"visibility_timeout": None},
            {"unacked_key": 3},
            {"priority_steps": 3},
        ):
            found = looked(app_on(server.url, broker_transport_options=options))
            assert set(alarms(found)) == {"queues"}, options
            assert "see settings.values" in only(found, "queues").reason
        assert alarms(looked(app_on(server.url, broker_transport_options={"global_keyprefix": None}))) == {}
        reachable = looked(app_on(server.url, broker_transport_options="text"))["reachable"]
        assert any("broker_transport_options cannot work; allowed: a dict" in one.reason for one in reachable)


def test_each_redis_of_a_list_of_brokers_is_looked_at(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE) as server:
        dead = f"redis://127.0.0.1:{free_port()}/0"
        found = looked(app_on(f"{dead};{server.url}", server.url), max_clients=12)
        away, there = found["reachable"]
        assert (away.verdict, there.verdict) == ("warn", "ok")
        assert "another broker of the list takes its place" in away.reason
        (one,) = look_at_redis(Scope(app_on(f"amqp://127.0.0.1:1//;{server.url}", "rpc://")))
        assert one.roles == {"messages", "figures"}
        most = connection_budget(app_on(server.url, "rpc://", worker_concurrency=2)).at_most
        found = looked(app_on(f"amqp://127.0.0.1:1//;{server.url}", "rpc://", worker_concurrency=2))
        assert only(found, "forecast").figure.startswith(f"{most} at most of 10,000"), "messages are counted"
        alone = looked(app_on(dead, server.url))
        assert [one.verdict for one in alone["reachable"]] == ["fail", "ok"]


def test_a_result_backend_without_a_url_is_looked_at(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE) as server, server.client() as client:
        client.config_set("requirepass", "hush")
        parts = {"redis_host": "127.0.0.1", "redis_port": server.port, "redis_password": "hush", "redis_db": 3}
        app = app_on("memory://", "redis", **parts)
        (one,) = look_at_redis(Scope(app))
        assert (sorted(one.roles), one.error, one.places[0].database) == (["figures", "results"], "", 3)
        assert only(looked(app), "results").verdict == "ok"


def test_behind_sentinels_the_primary_is_looked_at(tmp_path: Path) -> None:
    servers = Sentinels(tmp_path, *SANE)
    with started(servers):
        broker = servers.url.partition("?")[0]
        options = {"master_name": servers.NAME}
        app = app_on(broker, broker_transport_options=options, result_backend_transport_options=options)
        (facts,) = look_at_redis(Scope(app))
        assert facts.roles == {"messages", "results", "figures"}
        assert facts.info["role"] == "master"
        found = looked(app)
        assert alarms(found) == {}


def test_a_replica_is_no_place_to_write_to(tmp_path: Path) -> None:
    servers = Sentinels(tmp_path, *SANE)
    with started(servers):
        assert "read-only replica" in only(looked(app_on(servers.second.url)), "reachable").reason


def test_of_a_cluster_it_is_said_that_nobody_looked_closer(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    with started(cluster):
        found = looked(None, redis_url=cluster.url)
        assert only(found, "reachable").verdict == "ok"
        assert "it is a Redis Cluster" in only(found, "memory").reason
    (gone,) = look_at_redis(Scope(None, {"redis_url": cluster.url}))
    assert gone.error


def test_each_server_is_looked_at_once_and_each_database_is_known(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE) as server:
        app = app_on(server.url, f"redis://localhost:{server.port}/4", argsize_redis_url="redis://127.0.0.1:1/0")
        first, second = look_at_redis(Scope(app))
        assert (sorted(first.roles), sorted(second.roles)) == (["messages", "results"], ["figures"])
        assert {place.role: place.database for place in first.places} == {"messages": 0, "results": 4}
        assert not first.error
        assert second.error


def test_rabbitmq_carries_messages_without_a_redis() -> None:
    assert look_at_redis(Scope(app_on("amqp://guest:guest@127.0.0.1:1//", "rpc://"))) == ()
    assert alarms(looked(app_on("amqp://guest:guest@127.0.0.1:1//", "rpc://"))) == {}


def test_without_an_app_and_without_a_redis_all_is_unknown() -> None:
    found = looked(None)
    assert {said[0].verdict for said in found.values()} == {"unknown"}
    assert "name an app" in only(found, "memory").reason


def test_a_redis_that_is_away_costs_its_timeout_and_its_password_is_not_told() -> None:
    app = app_on(f"redis://me:hush-hush@127.0.0.1:{free_port()}/0")
    found = looked(app)
    assert only(found, "reachable").verdict == "fail"
    assert only(found, "reachable").reason == "connection refused: nothing listens there"
    assert only(found, "memory").reason == "it could not be reached"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        found = looked(app_on(f"redis://me:hush-hush@127.0.0.1:{silent.getsockname()[1]}/0"), seconds=2)
        assert time.monotonic() - began < 3
        assert only(found, "reachable").verdict == "fail"
        assert "hush" not in str(found)


def test_a_redis_that_stops_answering_keeps_what_it_had_said(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE) as server, holding_up(server.port, "CONFIG", 3) as far:
        found = looked(None, redis_url=f"redis://127.0.0.1:{far}", seconds=4)
        assert only(found, "memory").verdict == "ok"
        assert "no answer in time" in only(found, "persistence").reason


def test_a_broker_url_that_cannot_work_is_told() -> None:
    found = looked(app_on("redis://localhost:99999/0", "rpc://", argsize_redis_url="redis://127.0.0.1:1"))
    assert any("its URL cannot work: the port" in one.reason for one in found["reachable"])


def test_facts_of_a_server_say_what_others_read(redis_url: str) -> None:
    (facts,) = look_at_redis(Scope(app_on(redis_url)))
    assert isinstance(facts, ServerFacts)
    assert facts.maxclients
    assert facts.messages.waiting == {"celery": 0}
    assert facts.info["redis_version"]
