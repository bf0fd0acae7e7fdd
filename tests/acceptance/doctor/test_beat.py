"""`argsize doctor` on a schedule without a Beat, with one and with two, all of them real processes."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.beats import beat, look_at_our_host
from support.judging import judged
from support.servers import Worker, running, wait_until

from celery_argsize.doctor.facts import Facts, LookResult, Scope
from celery_argsize.doctor.judge import beat as beat_checks
from celery_argsize.doctor.look.redis import look_at_redis
from celery_argsize.doctor.look.workers import look_at_workers

if TYPE_CHECKING:
    from pathlib import Path

    from support.scene import Scene


SCHEDULE = {
    "tick": {"task": "task_0", "schedule": 0.5},
    "tock": {"task": "task_1", "schedule": 0.4, "options": {"expires": 30}},
    "tomorrow": {"task": "task_2", "schedule": 86400.0},
}


def facts_of(app: Any) -> Facts:
    where = Scope(app)
    looked = LookResult(look_at_redis(where)), LookResult(look_at_workers(where))
    return Facts(where, *looked, LookResult(why_not="not asked"), LookResult(look_at_our_host(where)))


@pytest.mark.slow
def test_no_beat_one_beat_and_two_beats(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beat_checks, "GRACE_SECONDS", 1.0)
    app = scene.producer
    app.conf.beat_schedule = SCHEDULE
    env = scene.env(conf={"beat_schedule": SCHEDULE, "worker_prefetch_multiplier": 1})
    with running(Worker(scene.folder, env, "-c", "1", "-n", "one@%h")):
        ready = time.monotonic()
        wait_until(lambda: time.monotonic() > ready + 5, what="a worker that is more than just there")
        none = facts_of(app)
        with beat(scene.folder / "first", env) as first:
            one = facts_of(app)
            sends = judged(one, "beat.sending")
            with beat(scene.folder / "second", env) as second:
                two = facts_of(app)
                both_send = judged(two, "beat.sending")
    assert {name: outcome.verdict for name, outcome in judged(none, "beat.sending").items()} == {
        "tick": "fail",
        "tock": "fail",
    }
    assert re.fullmatch(r"0 runs in \d+ s, due every 0\.5 s", judged(none, "beat.sending")["tick"].figure)
    assert judged(none, "beat.schedule")[""].verdict == "ok"
    assert {name: outcome.verdict for name, outcome in sends.items()} == {"": "ok"}
    assert judged(one, "beat.single")[""].verdict == "ok"
    found = judged(two, "beat.single")[""]
    assert found.verdict == "fail"
    assert all(str(process.pid) in found.figure for process in (first, second))
    assert "numprocs=1" in found.fix
    assert {name: outcome.verdict for name, outcome in both_send.items()} == {"": "ok"}


def test_the_beat_inside_a_worker_counts_and_so_does_a_second_one_beside_it(scene: Scene, tmp_path: Path) -> None:
    app = scene.producer
    app.conf.beat_schedule = schedule = {"tomorrow": {"task": "task_2", "schedule": 86400.0}}
    soon = {**schedule, "now": {"task": "task_0", "schedule": 0.5}}  # so that the test sees it send
    env = scene.env(conf={"beat_schedule": soon})
    inside = ("-B", "-s", str(tmp_path / "inside"))
    with running(Worker(scene.folder, env, "-c", "1", "-n", "one@%h", *inside)) as worker:
        one = facts_of(app)
        with beat(scene.folder / "second", env) as second:
            two = facts_of(app)
    sending = judged(one, "beat.sending")[""]
    assert (sending.verdict, sending.figure) == ("ok", f"pid {worker.process.pid}")
    assert judged(one, "beat.single")[""].verdict == "ok"
    found = judged(two, "beat.single")[""]
    assert found.verdict == "fail"
    assert all(str(process.pid) in found.figure for process in (worker.process, second))
