"""Tasks go the same way with the monitor as without it, whatever happens to them.

Two workers run one scenario at the same time, one with the monitor and one without, each with a Redis database of its
own. Then results, signals, children and Celery's own log are compared.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, chain, group
from support.scene import Scene, figures
from support.servers import Worker, running, wait_until
from support.worklog import LOG_CONF, records

import celery_argsize

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import RedisServer

CONF = {
    **LOG_CONF,
    "accept_content": ["json", "pickle"],
    "worker_prefetch_multiplier": 50,
}
#: How the scenario ends: the state of each of its tasks, as Celery alone has it.
ENDS = {
    "soft_limit": "FAILURE",
    "soft_limit_caught": "SUCCESS",
    "hard_limit": "FAILURE",
    "retried_in_vain": "FAILURE",
    "retried_well": "SUCCESS",
    "retried_by_itself_in_vain": "FAILURE",
    "retried_by_itself_well": "SUCCESS",
    "changes_its_args": "SUCCESS",
    "loses_its_child": "SUCCESS",
    "rejected_once": "SUCCESS",
    "ignored": "PENDING",
    "ignored_result": "PENDING",
    "failed": "FAILURE",
    "errback": "SUCCESS",
    "fails_unpicklably": "FAILURE",
    "unknown_result": "FAILURE",
    "wrong_arguments": "FAILURE",
    "runs_another": "SUCCESS",
    **dict.fromkeys(("chain_1", "chain_2", "chain_3"), "SUCCESS"),
    **dict.fromkeys((f"group_{n}" for n in range(3)), "SUCCESS"),
    **dict.fromkeys((f"header_{n}" for n in range(3)), "SUCCESS"),
    "starts_chords": "SUCCESS",
    "body": "SUCCESS",
    "bad_header": "FAILURE",
    "body_never_run": "FAILURE",
    **dict.fromkeys((f"limited_{n}" for n in range(4)), "SUCCESS"),
    "revoked_before": "REVOKED",
    "revoked_while_running": "REVOKED",
}
#: "rejected" is not put back: its state differs between versions of Celery.
TASKS = {*ENDS, "rejected"}

#: Two, and one more for each task whose child was killed.
CHILDREN = 2 + len(("hard_limit", "loses_its_child", "revoked_while_running"))


class Life:
    """A scene whose tasks have ids that say what they are for, and whose app takes note of each signal."""

    def __init__(self, folder: Path, server: RedisServer, database: int) -> None:
        folder.mkdir(exist_ok=True)
        url = f"{server.url.removesuffix('/0')}/{database}"
        self.scene = Scene(folder, url, url)
        self.backend = self.scene.producer.backend
        # has no results, so that it does not listen for any
        self.sender = Celery("workload", broker=url, set_as_current=False)
        self.events_file = folder / "events.jsonl"

    def worker(self, settings: dict[str, Any], *options: str, oracle: bool = True, level: str = "WARNING") -> Worker:
        env = {**self.scene.env(settings, CONF), "TEST_EVENTS": str(self.events_file)}
        if not oracle:
            del env["TEST_ORACLE"]
        return Worker(self.scene.folder, env, "-l", level, "--without-heartbeat", *options, module="lifecycle")

    def send(self, task_id: str, name: str, *args: Any, **options: Any) -> Any:
        return self.sender.send_task(name, args, options.pop("kwargs", {}), task_id=task_id, **options)

    def signature(self, task_id: str, name: str, *args: Any) -> Any:
        return self.sender.signature(name, args, task_id=task_id)

    def events(self) -> list[tuple[str, str, str, float]]:
        """What happened: (what, task id, task name, when in seconds)."""
        if not self.events_file.exists():
            return []
        return [tuple(json.loads(line)) for line in self.events_file.read_text().splitlines()]

    def saw(self, what: str, task_id: str) -> bool:
        return any(event[:2] == (what, task_id) for event in self.events())

    def took(self, task_id: str) -> float:
        """Seconds from before our receiver to the end of a task."""
        times = [when for _, of, _, when in self.events() if of == task_id]
        return max(times) - min(times)

    def outcome(self, task_id: str) -> tuple[str, str, str | None]:
        """State, result, and the function in which the traceback ends."""
        found = self.backend.get_task_meta(task_id)
        functions = re.findall(r"^  File .*, line \d+, in (.*)$", found.get("traceback") or "", re.MULTILINE)
        return found["status"], repr(found["result"]), functions[-1] if functions else None

    def state(self, task_id: str) -> str:
        return str(self.backend.get_task_meta(task_id)["status"])

    def signals(self) -> dict[str, list[str]]:
        """What was sent for each task, in order; the eager ones, whose ids are made up, together."""
        sent: dict[str, list[str]] = defaultdict(list)
        for what, task_id, name, _ in self.events():
            if what != "child":
                sent[task_id if task_id in TASKS else "eager"].append(f"{what} {name}")
        sent["revoked_while_running"].sort()  # two processes tell of it
        return dict(sent)


def celerys_own(log: str) -> Counter[tuple[str, str, str]]:
    """What Celery logged, without what differs in each run: numbers (of processes, times) and made-up ids."""
    return Counter(
        (name, level, re.sub(r"0x[0-9a-f]+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d+(\.\d+)?", "N", text).rstrip())
        for name, level, text in records(log)
        if name != "celery_argsize"
    )


def send_scenario(life: Life) -> None:
    """Send all tasks but those that are to be revoked."""
    send, signature = life.send, life.signature
    # limits that leave a busy machine the time to begin with the body: Celery alone loses one in a receiver, too
    send("soft_limit", "sleeper", "x" * 3000, 30, soft_time_limit=1.5)
    send("soft_limit_caught", "cleans_up", "x" * 3000, 30, soft_time_limit=1.5)
    send("hard_limit", "sleeper", "x" * 3000, 30, time_limit=2)
    send("retried_in_vain", "retries", 99, "x" * 2000)
    send("retried_well", "retries", 1, "x" * 2000)
    send("retried_by_itself_in_vain", "retries_by_itself", 99)
    send("retried_by_itself_well", "retries_by_itself", 2)
    send("changes_its_args", "changes_its_args", [], kwargs={"word": "x" * 1500})
    send("loses_its_child", "loses_its_child", "x" * 4000)
    send("rejected", "rejects")
    send("rejected_once", "rejects_once")
    send("ignored", "ignores")
    send("ignored_result", "add", 1, 2, ignore_result=True)
    send("failed", "fails", "text", link_error=signature("errback", "error_callback"))
    send("fails_unpicklably", "fails_unpicklably")
    send("unknown_result", "unknown_result")
    send("wrong_arguments", "add", kwargs={"nonsense": 1})
    send("runs_another", "runs_another", [1, 2])
    chain(*(signature(f"chain_{n}", "add", n) for n in range(1, 4))).apply_async()
    group(signature(f"group_{n}", "add", n, n) for n in range(3)).apply_async()
    send("starts_chords", "starts_chords")


def send_limited(life: Life) -> None:
    for number in range(4):
        life.send(f"limited_{number}", "limited", number)


def revoke_some(life: Life) -> None:
    control = life.sender.control
    # the task would come by another way, maybe before this has come
    control.revoke("revoked_before", reply=True, limit=1, timeout=30)
    life.send("revoked_before", "add", 1, 1)
    life.send("revoked_while_running", "sleeper", "x" * 5000, 30)
    wait_until(lambda: life.saw("task_prerun", "revoked_while_running"), what="the task to revoke")
    control.revoke("revoked_while_running", terminate=True)


def ended(life: Life) -> bool:
    seen = life.signals()
    return (
        {task_id: life.state(task_id) for task_id in ENDS} == ENDS
        and all(task_id in seen for task_id in TASKS if task_id != "body_never_run")
        and "task_revoked sleeper" in seen["revoked_while_running"]
        and children(life) >= CHILDREN
    )


def test_a_tasks_life_is_the_same_with_the_monitor_and_without(tmp_path: Path, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.flushall()
    plain, monitored = Life(tmp_path / "plain", redis_server, 1), Life(tmp_path / "monitored", redis_server, 2)
    logs, sent = {}, {}
    with ExitStack() as stack:
        workers = {plain: plain.worker({"enabled": False}, "-c", "2"), monitored: monitored.worker({}, "-c", "2")}
        for worker in workers.values():
            stack.enter_context(running(worker))
        for life in workers:
            send_scenario(life)
            sent[life] = time.time()
            send_limited(life)
        for life in workers:
            revoke_some(life)
        for life, worker in workers.items():
            wait_until(partial(ended, life), what="the scenario")
            logs[life] = worker.stop()
            assert worker.process.returncode == 0

    assert monitored.signals() == plain.signals()
    for task_id in TASKS:
        if not task_id.startswith("limited"):  # its result is when it ran
            assert monitored.outcome(task_id) == plain.outcome(task_id), task_id
    for life in workers:
        ran = max(float(life.outcome(f"limited_{number}")[1]) for number in range(4))
        assert ran - sent[life] >= 0.5, "three more after the first, at 5 a second"
    assert children(monitored) == children(plain) == CHILDREN
    with_us, alone = celerys_own(logs[monitored]), celerys_own(logs[plain])
    assert (with_us - alone, alone - with_us) == (Counter(), Counter())
    assert alone
    assert "celery_argsize" not in logs[plain]

    truth = monitored.scene.truth()
    assert truth.pop("inner")[0] == 1, "an eager run, which is not counted"
    fails = truth.pop("fails")
    found = figures(celery_argsize.get_size_summary(redis_url=monitored.scene.broker))
    assert fails[0] == 3, "one of them eager"
    assert found.pop("fails")[0] == 2
    assert found == truth


def children(life: Life) -> int:
    return sum(event[0] == "child" for event in life.events())


# -- a soft time limit that comes while we measure ---------------------------------------------------------------------

#: Dates in a list of that many take about a second to measure, and unpickle within milliseconds: it is one date.
MANY = 400_000


def measuring_takes_a_second() -> list[dt.date]:
    return [dt.date(2024, 2, 29)] * MANY


@pytest.mark.slow
def test_a_soft_time_limit_that_comes_while_we_measure_ends_the_task(tmp_path: Path, redis_server: RedisServer) -> None:
    life = Life(tmp_path, redis_server, 3)
    # without the oracle: Celery would swallow a limit that comes within it
    with redis_server.client() as client:
        client.flushall()
    with running(life.worker({}, "-c", "1", oracle=False)) as worker:
        slow = measuring_takes_a_second()
        life.send("warm", "sleeper", 0)
        wait_until(lambda: life.state("warm") == "SUCCESS", what="the first task")
        pickled = {"serializer": "pickle"}
        for number, limit in enumerate((0.1, 0.25, 0.4)):
            life.send(f"hit_{number}", "sleeper", slow, 20, soft_time_limit=limit, **pickled)
        life.send("caught", "cleans_up", slow, 20, soft_time_limit=0.25, **pickled)
        life.send("brief", "sleeper", slow, 0, soft_time_limit=0.25, **pickled)
        for number in range(40):
            life.send(f"after_{number}", "sleeper", 0.01)
        wait_until(lambda: life.saw("task_postrun", "after_39"), what="all of them", timeout=60)
        log = worker.stop()
    for number in range(3):
        assert life.outcome(f"hit_{number}")[:2] == ("FAILURE", "SoftTimeLimitExceeded()"), number
        assert life.took(f"hit_{number}") < 10, "the body alone would sleep 20 s"
    assert life.outcome("caught")[1] == "'cleaned up'"
    assert life.state("brief") in {"SUCCESS", "FAILURE"}, "its body may be over before the limit can be told"
    assert {life.outcome(f"after_{number}")[1] for number in range(40)} == {"'slept'"}
    assert children(life) == 1
    assert "Signal handler" not in log
    (task,) = [t for t in celery_argsize.get_size_summary(redis_url=life.scene.broker).tasks if t.name == "sleeper"]
    assert task.count == 1 + 3 + 1 + 40
