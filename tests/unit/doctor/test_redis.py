"""The judges of Redis over made-up facts: every threshold from both sides, and what is written to be pasted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from celery_argsize.doctor.checks import Outcome
from celery_argsize.doctor.facts import Facts, LookResult, Scope, Unavailable
from celery_argsize.doctor.judge.redis import CHECKS
from celery_argsize.doctor.redis_facts import (
    NO_RIGHT,
    RIGHTS,
    Holders,
    Place,
    Queues,
    Results,
    Role,
    ServerFacts,
)
from celery_argsize.settings import Settings

MB = 1 << 20

#: What a sane Redis says of itself.
INFO: dict[str, Any] = {
    "redis_version": "7.2.4",
    "uptime_in_seconds": 86_400 * 3,
    "connected_clients": 11,
    "maxclients": 100,
    "evicted_keys": 0,
    "used_memory": 10 * MB,
    "used_memory_rss": 14 * MB,
    "maxmemory": 100 * MB,
    "maxmemory_policy": "noeviction",
    "total_system_memory": 1000 * MB,
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok",
}
JUDGES = {check.id.removeprefix("redis."): check.judge for check in CHECKS}


def place(role: Role, url: str = "redis://10.0.0.7:6379/0", certificates: str = "") -> Place:
    checks = certificates or ("required" if url.startswith("rediss") else "")
    return Place(role, Settings(redis_url=url), checks)


def server(*roles: Role, info: dict[str, Any] | None = None, **facts: Any) -> ServerFacts:
    made = tuple(place(role) for role in roles or ("messages", "results", "figures"))
    given = {"places": made, "pings": (0.001,), **facts}
    return ServerFacts(info={**INFO, **(info or {})}, **given)


def judged(check: str, *servers: ServerFacts, app: Celery | None = None, nodes: tuple[Any, ...] = ()) -> list[Outcome]:
    none: LookResult[Any] = LookResult(why_not="not looked at")
    workers: LookResult[Any] = LookResult(SimpleNamespace(nodes=nodes)) if nodes else none
    app = app or Celery("proj", broker="redis://10.0.0.7:6379/0")
    facts = Facts(Scope(app), LookResult(servers), workers, none, none)
    said = JUDGES[check](facts)
    return [said] if isinstance(said, Outcome) else [*said]


def verdict(check: str, *servers: ServerFacts, **more: Any) -> str:
    (one,) = judged(check, *servers, **more)
    assert one.verdict in {"ok", "unknown"} or one.fix, "whatever is wrong comes with a fix"
    assert one.reason
    return one.verdict


@pytest.mark.parametrize("check", sorted(JUDGES))
def test_a_sane_redis_has_no_alarm(check: str) -> None:
    holders = (Holders(10, "", "10.0.0.9", "waits for messages (a worker)"),)
    found: dict[str, Any] = {
        "messages": Queues({"celery": 12}, unacked=8, oldest=30.0),
        "results": Results(500, 0, complete=True),
    }
    app = Celery("proj", broker="redis://10.0.0.7:6379/0")
    app.conf.worker_concurrency = 2
    assert verdict(check, server(holders=holders, **found), app=app) == "ok"


def test_clients_are_counted_without_the_doctors_own() -> None:
    for count, expected in ((79, "ok"), (80, "warn"), (94, "warn"), (95, "fail"), (100, "fail")):
        missed = {"holders": "no right"}
        assert verdict("clients", server(info={"connected_clients": count + 1}, missed=missed)) == expected
        holders = (Holders(count, "", "10.0.0.9", "idle"),)
        assert verdict("clients", server(info={"connected_clients": 7}, holders=holders)) == expected, "who is listed"
    assert verdict("clients", server(info={"maxclients": 0}, holders=(Holders(9, "", "", ""),))) == "unknown"


def test_who_holds_the_clients_is_told() -> None:
    holders = (
        Holders(90, "", "127.0.0.1", "waits for messages (a worker)"),
        *(Holders(1, f"app-{number}", "10.0.0.9", "idle") for number in range(9)),
    )
    (found,) = judged("clients", server(holders=holders))
    lines = found.fix.splitlines()
    assert lines[1].split()[:4] == ["90", "-", "127.0.0.1", "waits"]
    assert [line.split()[1] for line in lines[1:7]] == ["-", *(f"app-{number}" for number in range(5))]
    assert lines[7].startswith("celery "), "six groups and no more"
    assert "celery -A proj argsize doctor --apply-pool-shrink" in lines


def test_the_settings_to_paste_are_spelled_as_the_app_does_and_hold_no_secret() -> None:
    app = Celery("proj", broker="redis://10.0.0.7:6379/0", namespace="CELERY")
    app.conf.broker_transport_options = {"visibility_timeout": 7200, "sentinel_kwargs": {"password": "hush"}}
    app.conf.worker_concurrency = 64
    (found,) = judged("forecast", server(), app=app)
    lines = found.fix.splitlines()
    assert "CELERY_BROKER_POOL_LIMIT = 2" in lines
    assert "CELERY_BROKER_TRANSPORT_OPTIONS['max_connections'] = 4" in lines, "the others stay"
    assert "hush" not in found.fix


def test_redis_cli_gets_the_user_and_no_password() -> None:
    made = Place("messages", Settings(redis_url="rediss://joe%20x:hush@10.0.0.7:6379/0"), "required")
    (found,) = judged("latency", server(places=(made,), pings=(0.2,)))
    assert "redis-cli -u rediss://10.0.0.7:6379/0 --user 'joe x' --latency" in found.fix
    assert "hush" not in found.fix


def test_the_forecast_alarms_only_where_the_configuration_meets_the_limit() -> None:
    app = Celery("proj", broker="redis://10.0.0.7:6379/0")
    app.conf.worker_concurrency = 8
    assert verdict("forecast", server(info={"maxclients": 10_000}), app=app) == "ok"
    assert verdict("forecast", server(info={"maxclients": 12}), app=app) == "warn"
    of = {"pid": 1, "pool": "prefork", "concurrency": 8, "stats": {}}
    nodes = tuple(SimpleNamespace(name=f"n{number}", **of) for number in range(40))
    (found,) = judged("forecast", server(), app=app, nodes=nodes)
    assert found.verdict == "warn"
    assert "40 live workers, 320 tasks at once" in found.figure
    app.conf.worker_pool = "gevent"
    app.conf.update(result_backend="redis://10.0.0.7:6379/0")
    assert verdict("forecast", server(info={"maxclients": 10_000}), app=app) == "ok", "no bound, but much room"
    assert verdict("forecast", server(info={"maxclients": 40}), app=app) == "warn"
    elsewhere = Celery("proj", broker="amqp://")
    (found,) = judged("forecast", server("figures"), app=elsewhere)
    assert (found.verdict, found.figure.partition(" (")[0]) == ("ok", "0 at most of 100 clients")


def test_memory_is_held_against_what_there_may_be() -> None:
    for used, expected in ((79, "ok"), (80, "warn"), (94, "warn"), (95, "fail"), (101, "fail")):
        assert verdict("memory", server(info={"used_memory": used * MB})) == expected
    full = {"used_memory": 100 * MB}
    assert verdict("memory", server(info={**full, "maxmemory_policy": "allkeys-lru"})) == "ok", "meant to be full"
    assert verdict("memory", server(info={**full, "maxmemory_policy": "volatile-ttl"})) == "fail", (
        "maybe nothing to throw away"
    )
    unbounded = {"maxmemory": 0, "used_memory": 500 * MB, "used_memory_rss": 600 * MB}
    assert verdict("memory", server(info=unbounded)) == "ok"
    assert verdict("memory", server(info={**unbounded, "used_memory": 900 * MB, "used_memory_rss": 900 * MB})) == "warn"
    assert verdict("memory", server(info={**unbounded, "total_system_memory": 0})) == "unknown"


def test_keys_that_were_thrown_away_are_told_with_since_when() -> None:
    (found,) = judged("memory", server(info={"evicted_keys": 1234}))
    assert (found.verdict, found.figure) == ("warn", "1,234 keys since it started 3 days ago")


@pytest.mark.parametrize(
    ("policy", "roles", "expected"),
    [
        ("noeviction", ("messages",), "ok"),
        ("volatile-lru", ("messages", "results"), "ok"),
        ("allkeys-lru", ("messages",), "fail"),
        ("allkeys-lfu", ("figures",), "fail"),
        ("allkeys-random", ("results",), "warn"),
        ("", ("messages",), "unknown"),
    ],
)
def test_an_evicting_policy_is_judged_by_what_it_can_throw_away(
    policy: str, roles: tuple[Role, ...], expected: str
) -> None:
    assert verdict("eviction", server(*roles, info={"maxmemory_policy": policy})) == expected
    if policy:
        assert verdict("eviction", server(*roles, info={"maxmemory_policy": policy, "maxmemory": 0})) == "ok"


def test_persistence_is_judged_by_what_a_restart_loses() -> None:
    off = {"aof_enabled": 0}
    assert verdict("persistence", server(info=off, config={"save": "3600 1"})) == "ok"
    assert verdict("persistence", server(info=off, config={"save": ""})) == "warn"
    assert verdict("persistence", server("results", "figures", info=off, config={"save": ""})) == "ok"
    assert verdict("persistence", server(info=off, missed={"config": "no such command"})) == "unknown"
    assert verdict("persistence", server(info={"aof_last_write_status": "err"})) == "fail"
    stale = {**off, "aof_last_write_status": "err"}
    assert verdict("persistence", server(info=stale, config={"save": "3600 1"})) == "ok", "it was switched off since"


def test_a_save_that_failed_is_an_outage_only_where_writes_are_refused() -> None:
    err = {"rdb_last_bgsave_status": "err"}
    stops = {"save": "3600 1", "stop-writes-on-bgsave-error": "yes"}
    assert verdict("persistence", server(info=err, config=stops)) == "fail"
    assert verdict("persistence", server(info=err, config={**stops, "stop-writes-on-bgsave-error": "no"})) == "warn"
    assert verdict("persistence", server(info=err, config={**stops, "save": ""})) == "ok", (
        "an append-only file is there"
    )
    missed = {"config": "no such command"}
    assert verdict("persistence", server(info=err, missed=missed, pings=())) == "fail", "it refuses a PING as well"
    assert verdict("persistence", server(info=err, missed=missed)) == "ok"


def test_one_slow_answer_of_many_is_no_alarm_but_a_stall_is() -> None:
    assert verdict("latency", server(pings=(0.09,) * 9)) == "ok"
    assert verdict("latency", server(pings=(0.001,) * 8 + (0.9,))) == "ok"
    assert verdict("latency", server(pings=(0.1,) * 9)) == "warn"
    assert verdict("latency", server(pings=(0.001,) * 8 + (1.0,))) == "warn"


def test_a_queue_is_long() -> None:
    def queue(count: int) -> ServerFacts:
        return server(messages=Queues({"celery": 0, "slow queue": count}))

    assert verdict("queues", queue(9999)) == "ok"
    (found,) = judged("queues", queue(10_000))
    assert (found.verdict, found.subject) == ("warn", "queue slow queue")
    assert found.figure == "10,000 messages"
    assert "celery -A proj worker -Q 'slow queue'" in found.fix
    assert judged("queues", server("results")) == [], "only where messages are"
    hostile = server(messages=Queues({"a\nrm -rf '$(b)": 99_999}))
    assert [line for line in judged("queues", hostile)[0].fix.splitlines() if not line.startswith("celery ")] == []


def test_messages_that_workers_hold_are_no_alarm_until_nobody_would_put_them_back() -> None:
    def held(count: int, oldest: float, overdue: int) -> ServerFacts:
        return server(messages=Queues(unacked=count, oldest=oldest, overdue=overdue, visibility=3600.0))

    assert verdict("queues", held(0, 0.0, 0)) == "ok"
    assert verdict("queues", held(4000, 3000.0, 0)) == "ok", "prefetched, or with an ETA"
    assert verdict("queues", held(3, 3700.0, 1)) == "ok", "workers look for them every few minutes"
    assert verdict("queues", held(3, 9000.0, 2)) == "warn"


def test_results_that_last_are_told_once_there_are_many() -> None:
    def sampled(lasting: int) -> ServerFacts:
        return server("results", results=Results(2000, lasting, complete=False))

    assert verdict("results", sampled(99)) == "ok"
    (found,) = judged("results", sampled(100))
    assert (found.verdict, found.figure) == ("warn", "100 of 2,000 sampled results never expire")
    assert 'TTL "$key")" != -1 ] || ' in found.fix, "those that expire stay as they are"


def test_what_could_not_be_looked_at_leaves_only_that_open_and_says_what_would_allow_it() -> None:
    found = server(missed={"info": NO_RIGHT})
    for check in ("clients", "forecast", "memory", "eviction", "persistence"):
        (one,) = judged(check, found)
        assert (one.verdict, one.fix) == ("unknown", f"ACL SETUSER NAME {RIGHTS}")
    assert verdict("latency", found) == "ok"
    away = server(error="no connection")
    assert judged("memory", away)[0].reason == "it could not be reached"


def test_tls_is_judged_for_each_role() -> None:
    def told(*places: Place) -> list[Outcome]:
        return judged("tls", server(places=places))

    for url in ("rediss://10.0.0.7:6379/0", "unix:///run/redis.sock", "redis://10.0.0.7:6379/0"):
        (one,) = told(place("messages", url))
        assert one.verdict == "ok"
    url = "rediss://10.0.0.7:6379/0"
    mixed = told(place("messages", url, "none"), place("results", url), place("figures", url))
    assert [(one.verdict, one.subject) for one in mixed] == [
        ("warn", f"{url} for messages"),
        ("ok", f"{url} for results, figures"),
    ]
    assert mixed[0].reason.startswith("nobody checks")


def test_what_cannot_be_reached_comes_with_the_line_that_mends_it() -> None:
    def fix(role: Role, error: str, **more: Any) -> str:
        (one,) = judged("reachable", server(role, error=error), **more)
        assert (one.verdict, one.reason) == ("fail", error)
        return one.fix

    untrusted = "its certificate is not signed by a CA known here"
    refused = "connection refused: nothing listens there"
    assert fix("messages", refused).splitlines()[0] == "redis-cli -u redis://10.0.0.7:6379/0 ping"
    assert fix("messages", untrusted).startswith("import ssl\napp.conf.broker_use_ssl = {")
    assert "redis_backend_use_ssl" in fix("results", untrusted)
    assert "app.conf.argsize_redis_ssl_ca_certs" in fix("figures", untrusted)
    assert "app.conf.broker_url = " in fix("messages", "its URL cannot work: no scheme")


def test_nothing_is_made_up_where_info_lacks_a_figure() -> None:
    bare = ServerFacts(places=(place("messages"),))
    for check in ("memory", "persistence", "eviction"):
        (one,) = judged(check, bare)
        assert one.verdict == "unknown"
    with pytest.raises(Unavailable):
        server(missed={"pings": "no time"}).need("pings")
