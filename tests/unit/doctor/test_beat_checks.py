"""What the doctor concludes of Beat, from what the workers ran: over facts, without any process."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from celery.schedules import crontab
from support import judging

from celery_argsize.doctor.app import external_scheduler, read_schedule
from celery_argsize.doctor.facts import (
    CeleryProcess,
    Facts,
    HostFacts,
    LookResult,
    Node,
    Scope,
    Unavailable,
    WorkerFacts,
)
from celery_argsize.doctor.redis_facts import Queues

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome

MINUTE = {"e": {"task": "t", "schedule": 60.0}}
OFTEN = {"e": {"task": "t", "schedule": 0.5}}
HOUR = 3600.0


def app_with(schedule: dict[str, Any], **conf: Any) -> Celery:
    app = Celery("proj", broker="memory://", set_as_current=False)
    app.conf.update(beat_schedule=schedule, **conf)
    app.finalize()
    return app


def node(runs: int = 0, uptime: float = HOUR, *, name: str = "w@box", **more: Any) -> Node:
    """A worker that ran the task t."""
    totals = {"t": runs, "u": runs}
    values: dict[str, Any] = {"name": name, "uptime": uptime, "queues": ("celery",), "registered": ("t", "u")}
    return Node(**{**values, "totals": totals, "concurrency": 2, "active": 0, **more})


def beat(pid: int, ppid: int = 1, *, age: float = HOUR, app: str = "proj") -> CeleryProcess:
    return CeleryProcess(pid=pid, ppid=ppid, kind="beat", beat=True, app=app, created=time.time() - age)


def facts(app: Celery, *nodes: Node, beats: tuple[CeleryProcess, ...] = (), waiting: int = 0, **more: Any) -> Facts:
    host = HostFacts(hostname="box", cpus=2, processes=beats)
    redis: Any = (SimpleNamespace(roles={"messages"}, error="", messages=Queues({"celery": waiting})),)
    found = WorkerFacts(**{"nodes": nodes, "listened": 2.5, "port": 6379, **more})
    return Facts(
        Scope(app), LookResult(redis), LookResult(found), LookResult(why_not="not looked at"), LookResult(host)
    )


def judged(given: Facts, name: str) -> dict[str, Outcome]:
    return judging.judged(given, f"beat.{name}")


def verdict(given: Facts, name: str) -> str:
    (outcome,) = judged(given, name).values()
    return outcome.verdict


@pytest.mark.parametrize("name", ["schedule", "sending", "single"])
def test_an_app_without_a_schedule_needs_no_beat_even_where_nothing_runs(name: str) -> None:
    assert verdict(facts(app_with({})), name) == "ok"


@pytest.mark.parametrize("scheduler", ["django_celery_beat.schedulers:DatabaseScheduler", "redbeat.RedBeatScheduler"])
def test_a_schedule_that_is_kept_elsewhere_cannot_be_seen(scheduler: str) -> None:
    app = app_with(MINUTE, beat_scheduler=scheduler)
    assert external_scheduler(app) == scheduler
    for name in ("schedule", "sending"):
        with pytest.raises(Unavailable, match=scheduler):
            judged(facts(app, node()), name)


def test_several_beats_with_another_scheduler() -> None:
    two = (beat(1000), beat(1001))
    given = {
        name: verdict(facts(app_with({}, beat_scheduler=name), node(), beats=two), "single")
        for name in ("redbeat.RedBeatScheduler", "django_celery_beat.schedulers:DatabaseScheduler", "mine:Scheduler")
    }
    assert [*given.values()] == ["ok", "warn", "warn"]


def test_an_entry_needs_a_worker_that_knows_its_task_and_consumes_its_queue() -> None:
    schedule = {
        "lost": {"task": "renamed", "schedule": 60.0},
        "aside": {"task": "t", "schedule": 60.0, "options": {"queue": "aside"}},
        **MINUTE,
    }
    given = facts(app_with(schedule), node())
    found = judged(given, "schedule")
    assert {name: one.verdict for name, one in found.items()} == {"lost": "fail", "aside": "fail"}
    assert found["aside"].fix == "celery -A proj worker -Q aside,celery"
    # what cannot run is told once: here nothing is said of it
    assert verdict(given, "sending") == "unknown"


@pytest.mark.parametrize("broken", [None, {}, {"task": "t"}, {"task": "t", "schedule": "often"}, {"schedule": 5}])
def test_an_entry_that_cannot_be_read_is_named_and_the_others_are_looked_at(broken: Any) -> None:
    app = app_with({"odd": broken, **MINUTE})
    assert {name: one.verdict for name, one in judged(facts(app, node()), "schedule").items()} == {"odd": "fail"}
    assert verdict(facts(app, node(3)), "sending") == "ok"
    alone = facts(app_with({"odd": broken}), broker_error="connection refused")
    assert {name: one.verdict for name, one in judged(alone, "schedule").items()} == {"odd": "fail"}


def test_celerys_own_tasks_are_known_to_all() -> None:
    app = app_with({"tidy": {"task": "celery.backend_cleanup", "schedule": 60.0, "options": {"expires": 5}}})
    assert verdict(facts(app, node()), "schedule") == "ok"
    assert judged(facts(app, node()), "sending")["tidy"].reason.endswith("no Beat sends it, or all expire first.")


def test_schedules_of_all_kinds_are_read() -> None:
    app = app_with(
        {
            "number": {"task": "t", "schedule": 30},
            "delta": {"task": "t", "schedule": timedelta(minutes=2), "options": {"expires": 5}},
            "cron": {"task": "t", "schedule": crontab(minute=0)},
        }
    )
    assert {entry.name: entry.every for entry in read_schedule(app).values() if entry} == {
        "number": 30,
        "delta": 120,
        "cron": None,
    }


@pytest.mark.parametrize(
    ("runs", "uptime", "expected"),
    [
        (0, 60 * 3 + 10, "fail"),
        (0, 60 * 3 + 9, "unknown"),  # it may be due just now
        (1, HOUR, "ok"),
        (60, HOUR, "ok"),
        (0, 5, "unknown"),  # a worker that has just started
    ],
)
def test_no_run_in_the_time_of_three_is_no_beat(runs: int, uptime: float, expected: str) -> None:
    assert verdict(facts(app_with(MINUTE), node(runs, uptime)), "sending") == expected


def test_the_youngest_worker_says_how_long_all_were_there() -> None:
    young = facts(app_with(MINUTE), node(0, HOUR, name="a@box"), node(0, 20, name="b@box"))
    assert verdict(young, "sending") == "unknown"
    aside = facts(app_with(MINUTE), node(0, HOUR, name="a@box"), node(0, 20, name="b@box", queues=("other",)))
    assert verdict(aside, "sending") == "fail"
    deaf = facts(app_with(MINUTE), node(0, HOUR), silent=("deaf@box",))
    assert verdict(deaf, "sending") == "unknown"


def test_a_beat_that_is_seen_counts_from_its_own_start() -> None:
    fresh = facts(app_with(MINUTE), node(0, HOUR), beats=(beat(1000, age=90),))
    assert verdict(fresh, "sending") == "ok"
    old = judged(facts(app_with(MINUTE), node(0, HOUR), beats=(beat(1000),)), "sending")["e"]
    assert old.verdict == "fail"
    assert "pid 1000" in old.reason


def test_what_is_due_often_must_have_run() -> None:
    away = judged(facts(app_with(OFTEN), node(0, uptime=20)), "sending")["e"]
    assert (away.verdict, away.figure) == ("fail", "0 runs in 20 s, due every 0.5 s")
    assert verdict(facts(app_with(OFTEN), node(0, uptime=6)), "sending") == "unknown"


def test_workers_that_are_busy_are_not_taken_for_a_beat_that_is_away() -> None:
    waits = judged(facts(app_with(OFTEN), node(0, 20), waiting=400), "sending")["e"]
    assert (waits.verdict, waits.figure) == ("warn", "0 runs in 20 s, due every 0.5 s; 400 messages waiting")
    assert verdict(facts(app_with(OFTEN), node(0, active=2)), "sending") == "warn"


def test_a_crontab_is_judged_only_where_it_was_due() -> None:
    app = app_with({})
    now = app.now()
    hourly = {"e": {"task": "t", "schedule": crontab(minute=(now - timedelta(minutes=5)).minute, app=app)}}
    app.conf.beat_schedule = hourly
    assert verdict(facts(app, node(0, 600)), "sending") == "warn"
    assert verdict(facts(app, node(1, 600)), "sending") == "ok"
    assert verdict(facts(app, node(0, 120)), "sending") == "unknown"
    assert verdict(facts(app, node(0, 120), beats=(beat(1000),)), "sending") == "ok"


# --- two Beats


def test_beats_on_this_machine() -> None:
    app = app_with(MINUTE)
    assert verdict(facts(app, node(0, 30), beats=(beat(1000),)), "single") == "ok"
    two = judged(facts(app, node(0, 30), beats=(beat(1000), beat(1001))), "single")[""]
    assert (two.verdict, two.figure) == ("warn", "2 Beats with this app's -A on this machine: pids 1000, 1001")
    wrapped = (beat(1000), beat(1001, ppid=1000))  # such as `uv run celery beat`
    assert verdict(facts(app, node(0, 30), beats=wrapped), "single") == "ok"
    assert verdict(facts(app, node(0, 30), beats=(beat(1000), beat(1001, app="other"))), "single") == "ok"
    elsewhere = replace(beat(1001), ports=frozenset({6390}))
    assert verdict(facts(app, node(0, 30), beats=(beat(1000), elsewhere)), "single") == "ok"
    assert verdict(facts(app, node(0, 30)), "single") == "unknown"
