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
    Contents,
    Holders,
    Place,
    Results,
    Role,
    ServerFacts,
    Tls,
    Unacked,
    Waiting,
)
from celery_argsize.settings import Settings

MB = 1 << 20

#: What a sane Redis says of itself.
INFO: dict[str, Any] = {
    "redis_version": "7.2.4",
    "uptime_in_seconds": 86_400 * 3,
    "connected_clients": 11,
    "maxclients": 100,
    "rejected_connections": 0,
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


def place(role: Role, url: str = "redis://10.0.0.7:6379/0", **tls: Any) -> Place:
    return Place(role, Settings(redis_url=url), Tls(**{"on": url.startswith("rediss"), **tls}))


def server(*roles: Role, info: dict[str, Any] | None = None, **facts: Any) -> ServerFacts:
    made = tuple(place(role) for role in roles or ("messages", "results", "figures"))
    given = {"url": "redis://10.0.0.7:6379/0", "places": made, "pings": (0.001,), "public": False, **facts}
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
    holders = (Holders(10, "", "10.0.0.9", "waits for messages (a worker)", ()),)
    waiting, sample = Waiting({"celery": 12}, {"celery": 9000}), Results(500, 0, complete=True)
    contents = Contents(waiting, Unacked(8, 30.0, 0, 3600.0), sample)
    app = Celery("proj", broker="redis://10.0.0.7:6379/0")
    app.conf.worker_concurrency = 2
    assert verdict(check, server(holders=holders, contents=contents), app=app) == "ok"


def test_clients_are_counted_without_the_doctors_own() -> None:
    for count, expected in ((79, "ok"), (80, "warn"), (94, "warn"), (95, "fail"), (100, "fail")):
        missed = {"clients": ("no right", "")}
        assert verdict("clients", server(info={"connected_clients": count + 1}, missed=missed)) == expected
        holders = (Holders(count, "", "10.0.0.9", "idle", ()),)
        assert verdict("clients", server(info={"connected_clients": 7}, holders=holders)) == expected, "who is listed"
    assert verdict("clients", server(info={"maxclients": 0}, holders=(Holders(9, "", "", "", ()),))) == "unknown"


def test_who_holds_the_clients_is_told_by_the_workers_name_where_it_is_known() -> None:
    node = SimpleNamespace(name="celery@here", pid=10, processes=(11, 12), concurrency=2, pool="prefork")
    holders = (
        Holders(90, "", "127.0.0.1", "waits for messages (a worker)", (10, 11, 999)),
        *(Holders(1, f"app-{number}", "10.0.0.9", "idle", ()) for number in range(9)),
    )
    (found,) = judged("clients", server(holders=holders), nodes=(node,))
    lines = found.fix.splitlines()
    assert "celery@here, pid 999" in lines[1]
    assert lines[7].split() == ["4", "others"], "the rest in one line"


def test_the_settings_to_paste_are_spelled_as_the_app_does_and_hold_no_secret() -> None:
    app = Celery("proj", broker="redis://10.0.0.7:6379/0", namespace="CELERY")
    app.conf.broker_transport_options = {"visibility_timeout": 7200, "sentinel_kwargs": {"password": "hush"}}
    (found,) = judged("clients", server(holders=(Holders(99, "", "", "", ()),)), app=app)
    assert "CELERY_BROKER_POOL_LIMIT = 4" in found.fix
    assert "CELERY_BROKER_TRANSPORT_OPTIONS['max_connections'] = 4" in found.fix.splitlines(), "the others stay"
    assert "hush" not in found.fix


def test_ceilings_are_never_below_what_tasks_in_one_process_need() -> None:
    app = Celery("proj", broker="redis://10.0.0.7:6379/0", backend="redis://10.0.0.7:6379/0")
    app.conf.update(worker_pool="gevent", worker_concurrency=100, result_backend_thread_safe=True)
    for options in ({}, {"global_keyprefix": "mine:", "max_connections": 200}):
        app.conf.broker_transport_options = dict(options)
        (found,) = judged("clients", server(holders=(Holders(99, "", "", "", ()),)), app=app)
        settings = [line for line in found.fix.splitlines() if line.startswith("app.conf.")]
        exec("\n".join(settings), {"app": app})  # noqa: S102 - as it is pasted
        assert app.conf.broker_transport_options == {**options, "max_connections": 102}
        assert app.conf.redis_max_connections == 102
    app.conf.worker_pool = "prefork"
    node = SimpleNamespace(name="celery@here", pid=10, processes=(), concurrency=50, pool="gevent", stats={})
    (found,) = judged("clients", server(holders=(Holders(99, "", "", "", ()),)), app=app, nodes=(node,))
    assert "app.conf.broker_transport_options['max_connections'] = 52" in found.fix, "as it runs"
    assert found.fix.splitlines()[2] == "celery -A proj argsize doctor --apply-pool-shrink", "someone can be asked"


def test_redis_cli_gets_the_user_and_the_files_of_tls() -> None:
    url = "rediss://joe%20x:hush@10.0.0.7:6379/0"
    options = {"ssl_ca_certs": "/my ca.pem", "ssl_certfile": "/c.pem", "ssl_keyfile": "/k.pem"}
    made = Place("messages", Settings(redis_url=url, redis_options=options), Tls(on=True))
    of_app = server(places=(made,), info={"rejected_connections": 5})
    (found,) = judged("rejected", of_app)
    called = "redis-cli -h 10.0.0.7 -p 6379 --tls --cacert '/my ca.pem' --cert /c.pem --key /k.pem --user 'joe x' "
    assert called + "CONFIG RESETSTAT" in found.fix
    assert found.fix.count("REDISCLI_AUTH") == 1
    assert "hush" not in found.fix
    (found,) = judged("reachable", server(places=(made,), errors={"messages": "no connection"}))
    assert found.fix.count("REDISCLI_AUTH") == 1
    (plain,) = judged("rejected", server(info={"rejected_connections": 5}))
    assert "REDISCLI_AUTH" not in plain.fix
    unchecked = Place("messages", Settings(redis_url="rediss://10.0.0.7:6379/0"), Tls(on=True, checks="none"))
    (found,) = judged("rejected", server(places=(unchecked,), info={"rejected_connections": 5}))
    assert "-p 6379 --tls --insecure CONFIG" in found.fix


def test_the_forecast_alarms_only_where_the_configuration_meets_the_limit() -> None:
    app = Celery("proj", broker="redis://10.0.0.7:6379/0")
    app.conf.worker_concurrency = 8
    assert verdict("forecast", server(info={"maxclients": 10_000}), app=app) == "ok"
    assert verdict("forecast", server(info={"maxclients": 12}), app=app) == "warn"
    pool = {"implementation": "celery.concurrency.prefork:TaskPool", "processes": [*range(8)]}
    of = {"pid": 1, "processes": (), "pool": "prefork", "concurrency": 8, "stats": {"pool": pool}}
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
    assert (found.verdict, found.figure) == ("ok", "0 of 100 clients")


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


def test_swapping_is_told_only_where_there_is_something_to_swap() -> None:
    huge = {"maxmemory": 0, "total_system_memory": 9000 * MB}
    assert verdict("memory", server(info={**huge, "used_memory": 600 * MB, "used_memory_rss": 400 * MB})) == "warn"
    assert verdict("memory", server(info={**huge, "used_memory": 60 * MB, "used_memory_rss": 40 * MB})) == "ok"


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
    assert verdict("persistence", server(info=off, missed={"config": ("no such command", "")})) == "unknown"
    assert verdict("persistence", server(info={"aof_last_write_status": "err"})) == "fail"
    assert verdict("persistence", server(info={"aof_last_bgrewrite_status": "err"})) == "warn"
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
    missed = {"config": ("no such command", "")}
    assert verdict("persistence", server(info=err, missed=missed, pings=())) == "fail", "it refuses a PING as well"
    assert verdict("persistence", server(info=err, missed=missed)) == "ok"


def test_what_is_counted_since_the_start_says_since_when() -> None:
    for check, name in (("rejected", "rejected_connections"), ("evicted", "evicted_keys")):
        (found,) = judged(check, server(info={name: 1234}))
        assert found.verdict == "warn"
        assert found.figure.startswith("1,234 ")
        assert "since it started 3 days ago" in found.figure


@pytest.mark.parametrize(
    ("version", "roles", "expected"),
    [
        ("6.2.0", ("figures",), "ok"),
        ("8.4.1", ("messages",), "ok"),
        ("6.0.16", ("figures",), "fail"),
        ("6.0.16", ("messages",), "warn"),
        ("", ("messages",), "unknown"),
    ],
)
def test_a_version_is_judged_by_what_is_needed(version: str, roles: tuple[Role, ...], expected: str) -> None:
    assert verdict("version", server(*roles, info={"redis_version": version})) == expected


def test_one_slow_answer_of_many_is_no_alarm_but_a_stall_is() -> None:
    assert verdict("latency", server(pings=(0.09,) * 9)) == "ok"
    assert verdict("latency", server(pings=(0.001,) * 8 + (0.9,))) == "ok"
    assert verdict("latency", server(pings=(0.1,) * 9)) == "warn"
    assert verdict("latency", server(pings=(0.001,) * 8 + (1.0,))) == "warn"


def test_a_queue_is_long_or_heavy() -> None:
    def queue(count: int, weight: int) -> ServerFacts:
        return server(contents=Contents(Waiting({"celery": 0, "slow queue": count}, {"slow queue": weight})))

    assert verdict("queues", queue(9999, 9 * MB)) == "ok"
    assert verdict("queues", queue(10_000, MB)) == "warn"
    (found,) = judged("queues", queue(5, 11 * MB))
    assert (found.verdict, found.subject) == ("warn", "queue slow queue")
    assert found.figure == "5 messages, about 11.0 MB, 11% of maxmemory"
    assert "celery -A proj worker -Q 'slow queue'" in found.fix
    assert judged("queues", server("results")) == [], "only where messages are"
    hostile = server(contents=Contents(Waiting({"a\nrm -rf '$(b)": 99_999})))
    assert [line for line in judged("queues", hostile)[0].fix.splitlines() if not line.startswith("celery ")] == []


def test_messages_that_workers_hold_are_no_alarm_until_nobody_would_put_them_back() -> None:
    def held(count: int, oldest: float, overdue: int) -> ServerFacts:
        return server(contents=Contents(unacked=Unacked(count, oldest, overdue, 3600.0)))

    assert verdict("unacked", held(0, 0.0, 0)) == "ok"
    assert verdict("unacked", held(4000, 3000.0, 0)) == "ok", "prefetched, or with an ETA"
    assert verdict("unacked", held(3, 3700.0, 1)) == "ok", "workers look for them every few minutes"
    assert verdict("unacked", held(3, 9000.0, 2)) == "warn"


def test_results_that_last_are_told_once_there_are_many() -> None:
    def sampled(lasting: int, version: str = "7.0.0") -> ServerFacts:
        found = Results(2000, lasting, complete=False)
        return server("results", contents=Contents(results=found), info={"redis_version": version})

    assert verdict("results", sampled(99)) == "ok"
    (found,) = judged("results", sampled(100))
    assert (found.verdict, found.figure) == ("warn", "100 of 2,000 sampled results never expire")
    assert '"$key" 3600 NX' in found.fix, "those that expire stay as they are"
    assert '"$key" 3600 NX' in judged("results", sampled(100, "10.0.0"))[0].fix
    assert "NX" not in judged("results", sampled(100, "6.2.9"))[0].fix, "which has no such word"


def test_what_could_not_be_looked_at_leaves_only_that_open_and_says_what_would_allow_it() -> None:
    found = server(missed={"info": ("its user lacks a right (+info)", "ACL SETUSER NAME +info")})
    for check in ("clients", "forecast", "memory", "eviction", "evicted", "persistence", "version", "rejected"):
        (one,) = judged(check, found)
        assert (one.verdict, one.fix) == ("unknown", "ACL SETUSER NAME +info")
    assert verdict("latency", found) == "ok"
    away = server(errors=dict.fromkeys(("messages", "results", "figures"), "no connection"))
    assert judged("memory", away)[0].reason == "it could not be reached"


def test_tls_is_judged_for_each_role() -> None:
    def told(*places: Place, public: bool | None = False) -> Outcome:
        (one,) = judged("tls", server(places=places, public=public))
        return one

    assert told(place("messages", "rediss://10.0.0.7:6379/0")).verdict == "ok"
    assert told(place("messages", "unix:///run/redis.sock"), public=True).verdict == "ok"
    assert told(place("messages"), public=True).verdict == "warn"
    assert told(place("messages"), public=None).verdict == "unknown"
    mixed = told(
        place("messages", "rediss://10.0.0.7:6379/0", checks="none"), place("figures", "rediss://10.0.0.7:6379/0")
    )
    assert mixed.verdict == "warn"
    assert mixed.reason.startswith("messages: nobody checks")
    assert told(place("results", trouble="Celery refuses it")).verdict == "fail"


def test_what_cannot_be_reached_comes_with_the_line_that_mends_it() -> None:
    def fix(role: Role, error: str, **more: Any) -> str:
        (one,) = judged("reachable", server("messages", "results", "figures", errors={role: error}), **more)
        assert (one.verdict, one.reason) == ("fail", f"{error} (for {role})")
        return one.fix

    assert fix("messages", "no connection") == "redis-cli -h 10.0.0.7 -p 6379 ping"
    assert fix("messages", "its certificate has expired").startswith("import ssl\napp.conf.broker_use_ssl = {")
    assert "redis_backend_use_ssl" in fix("results", "its certificate is not signed by a CA known here")
    assert "app.conf.argsize_redis_ssl_ca_certs" in fix("figures", "its certificate is not signed by a CA known here")
    assert fix("messages", "its URL cannot work").startswith("look at broker_url")
    django = Celery("proj", broker="redis://10.0.0.7:6379/0", namespace="CELERY")
    assert fix("messages", "it does not say which primary", app=django).startswith("CELERY_BROKER_TRANSPORT_OPTIONS = ")


def test_nothing_is_made_up_where_info_lacks_a_figure() -> None:
    bare = ServerFacts(url="redis://h", places=(place("messages"),))
    for check in ("memory", "evicted", "rejected", "persistence", "version", "eviction"):
        (one,) = judged(check, bare)
        assert one.verdict == "unknown"
    with pytest.raises(Unavailable):
        server(missed={"pings": ("no time", "")}).need("pings")
