"""Whatever raises in celery_argsize itself, tasks and worker end as they would, and runs that are missed are counted.

tests/support/apps/breaking.py makes functions of ours raise, in real workers.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest
from celery import Celery
from support.scene import Scene
from support.servers import Worker, running, wait_until
from support.worklog import LOG_CONF, ours

import celery_argsize

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import RedisServer

#: The text of each error that is raised (breaking.py).
SECRET: Final = "sesame-open-4711"

RUNS: Final = 20
TEXT: Final = "x" * 5_000
"""Large, and its repr is cut: all code of the recorder runs."""


class Patient:
    """A worker with faults, and a Redis database of its own."""

    def __init__(self, folder: Path, server: RedisServer, database: int) -> None:
        folder.mkdir(exist_ok=True)
        url = f"{server.url.removesuffix('/0')}/{database}"
        self.scene = Scene(folder, url, url)
        # has no results, so that it does not listen for any
        self.sender = Celery("workload", broker=url, set_as_current=False)
        self.hits_file = folder / "hits"
        self.sent: dict[str, int] = {}
        self.worker: Worker

    def start(
        self,
        *options: str,
        settings: dict[str, Any] | None = None,
        broken: str = "",
        by_task: dict[str, str] | None = None,
        times: int = 1_000_000,
    ) -> Worker:
        """Start a worker. *broken*, *by_task* and *times* are explained in breaking.py."""
        settings = {"flush_interval": 0.1, "shutdown_timeout": 1, **(settings or {})}
        env = {
            **self.scene.env(settings, LOG_CONF),
            "TEST_BREAK_HITS": str(self.hits_file),
            "TEST_BREAK": broken,
            "TEST_BREAK_BY_TASK": json.dumps(by_task or {}),
            "TEST_BREAK_TIMES": str(times),
        }
        quiet = ("--without-heartbeat", "-l", "DEBUG", "-c", "1")
        self.worker = Worker(self.scene.folder, env, *quiet, *options, module="breaking")
        return self.worker

    def send(self, *tasks: str, runs: int = RUNS, word: object = 1) -> None:
        for number in range(runs):
            for task in tasks:
                sent = self.sender.send_task(task, [TEXT, number], {"word": word})
                self.sent[sent.id] = 3

    def results(self) -> dict[str, Any]:
        metas = {task_id: self.scene.producer.backend.get_task_meta(task_id) for task_id in self.sent}
        return {task_id: meta["result"] if meta["status"] == "SUCCESS" else meta for task_id, meta in metas.items()}

    def end(self) -> None:
        """Once all results are there, shut the worker down warmly."""
        self.wait_for_results()
        self.worker.process.terminate()

    def wait_for_results(self) -> None:
        wait_until(lambda: self.results() == self.sent, what="the tasks' right results", timeout=20)

    def hits(self) -> Counter[str]:
        """How often each fault raised."""
        return Counter(self.hits_file.read_text().split()) if self.hits_file.exists() else Counter()

    def counted(self) -> dict[str, tuple[int, int]]:
        """By task name: runs measured, and runs not measured for an error."""
        summary = celery_argsize.get_size_summary(redis_url=self.scene.broker)
        return {task.name: (task.count, task.errors) for task in summary.tasks}

    def complaints(self, timeout: float = 30) -> list[str]:
        """What is wrong with the worker's end and its log."""
        found = []
        if (code := self.worker.process.wait(timeout)) != 0:
            found.append(f"ended with {code}")
        log = self.worker.log
        if SECRET in log:
            found.append("the text of an error is in the log")
        loud = [record.text for record in ours(log) if record.level != "DEBUG"]
        loud = [text for text in loud if not text.startswith(("[CELERY MONITOR]", "[WORKER SHUTDOWN]"))]
        if any("Traceback" in text for text in loud) or re.search("^Traceback", log, re.MULTILINE):
            found.append("a traceback is in the log")
        kinds = Counter(":".join(text.split(":")[:2]) for text in loud)
        found += [f"{times} times: {kind}" for kind, times in kinds.items() if times > 1]
        return found if not found else [*found, *(text[:250] for text in loud)]


@pytest.fixture
def patient(tmp_path: Path, redis_server: RedisServer) -> Patient:
    with redis_server.client() as client:
        client.flushall()
    return Patient(tmp_path, redis_server, 1)


#: What breaks while a task is measured, by the task's name; and how its runs are counted: as measured, or as errors.
WHERE_A_TASK_RUNS: Final = {
    "task_0": ("worker.region:Region.count", "errors"),
    "task_1": ("measuring.measurement:clean", "errors"),
    "task_2": ("measuring.measurement:measure_part", "errors"),
    "task_3": ("measuring.walk:walk", "errors"),
    "task_4": ("measuring.cuts:read_header", "errors"),
    "task_5": ("measuring.repr_shape:measure_shape", "errors"),
    "task_6": ("worker.large_task_log:LargeTaskLog.write", "count"),
    "task_7": ("figures.layout:Layout.changes", "errors"),
    "task_8": ("worker.notes:NoteWriter.send", "count"),
    "task_9": ("worker.recorder:_Told.is_due", "count"),
}


@pytest.mark.slow
def test_what_raises_where_a_task_runs_is_counted_as_an_error_of_that_task(patient: Patient) -> None:
    faults = {task: f"celery_argsize.{target}" for task, (target, _) in WHERE_A_TASK_RUNS.items()}
    with running(patient.start(by_task=faults)):
        # a number beyond 64 bits, which the compiled module leaves to Python
        patient.send(*WHERE_A_TASK_RUNS, word=2**70)
        patient.end()
        complaints = patient.complaints()
    assert not complaints, json.dumps(complaints, indent=1)
    hits = patient.hits()
    assert {task for task, target in faults.items() if hits[target] < RUNS} <= {"task_8"}, (
        "which is called for some runs only"
    )
    assert hits[faults["task_8"]] > 0
    expected = {
        task: (RUNS, 0) if counted == "count" else (0, RUNS) for task, (_, counted) in WHERE_A_TASK_RUNS.items()
    }
    expected["__other__"] = expected.pop("task_1")  # what breaks is what makes a name fit
    assert patient.counted() == expected


#: What a measurement passes through in the main process.
WAY: Final = (
    "worker.notes:PipeNotes.wait",
    "worker.notes:PipeNotes.read",
    "worker.shared_counters:SharedCounters.differences",
    "worker.shared_counters:SharedCounters.begin_epoch",
    "worker.shared_counters:Reader._difference",
    "worker.flusher:Flusher._add_note",
    "worker.flusher:Flusher._turn",
    "worker.flusher:Flusher._deliver",
    "worker.flusher:Flusher._next_batch",
    "stores.redis:RedisStore.apply",
)

#: What breaks in any process; with a comma, two at once.
ANYWHERE: Final = [
    *WAY,
    "stores.redis:RedisStore.prepare",
    "stores.redis:RedisStore.close",
    "figures.counters:TaskStats.merge",
    "figures.counters:Tally.merge",
    "figures.origins:Origins.merge",
    "worker.install:InstalledMonitor.start",
    "worker.assembly:_worker_store",
    "worker.recorder:Recorder.__init__",
    "worker.shared_counters:SharedCounters.__init__",
    "worker.shared_counters:SharedCounters.region",
    "worker.notes:PipeNotes.__init__",
    "worker.notes:NoteWriter.send",
    "worker.flusher:Flusher.start",
    "worker.flusher:Flusher.stop",
    "views.report:shutdown_lines",
    "figures.summary:summarize",
    "settings:resolve",
    "worker.soft_limit:SoftLimit.watch",
    "worker.region:Region.count,failure_log:FailureLog.report",
    "worker.region:Region.count,worker.region:Region.update",
]
#: Where these break, nothing is measured or nothing can be written.
NOTHING_ARRIVES: Final = {
    "worker.shared_counters:SharedCounters.differences",
    "worker.shared_counters:Reader._difference",
    "worker.flusher:Flusher._deliver",
    "worker.flusher:Flusher._next_batch",
    "stores.redis:RedisStore.apply",
    "stores.redis:RedisStore.prepare",
    "figures.counters:TaskStats.merge",
    "figures.counters:Tally.merge",
    "worker.install:InstalledMonitor.start",
    "worker.assembly:_worker_store",
    "worker.recorder:Recorder.__init__",
    "worker.shared_counters:SharedCounters.__init__",
    "worker.shared_counters:SharedCounters.region",
    "worker.notes:PipeNotes.__init__",
    "worker.flusher:Flusher.start",
    "settings:resolve",
    "worker.region:Region.count,worker.region:Region.update",
}


@pytest.mark.slow
@pytest.mark.parametrize("group", range(4))
def test_a_fault_that_stays_harms_no_task_and_no_worker(tmp_path: Path, redis_server: RedisServer, group: int) -> None:
    with redis_server.client() as client:
        client.flushall()
    patients = {
        targets: Patient(tmp_path / str(number), redis_server, number)
        for number, targets in enumerate(ANYWHERE[group::4], start=1)
    }
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        for targets, patient in patients.items():
            names = ",".join(f"celery_argsize.{target}" for target in targets.split(","))
            patient.start(broken=names)
        for patient in patients.values():
            stack.enter_context(running(patient.worker))
            patient.send("task_0")
        for patient in patients.values():
            patient.end()
        for targets, patient in patients.items():
            complaints = patient.complaints()
            counted = sum(sum(counts) for counts in patient.counted().values())
            if counted != (0 if targets in NOTHING_ARRIVES else RUNS):
                complaints.append(f"{patient.counted()} of {RUNS} runs")
            if not all(patient.hits()[f"celery_argsize.{target}"] for target in targets.split(",")):
                complaints.append("it never broke")
            if complaints:
                found[targets] = complaints
    assert not found, json.dumps(found, indent=1)


#: What breaks twice and then works again, all at the same time.
PASSING: Final = (
    *WAY,
    "worker.region:Region.count",
    "figures.counters:Tally.merge",
)


@pytest.mark.slow
def test_after_faults_that_pass_each_run_was_measured_or_is_counted_as_an_error(patient: Patient) -> None:
    names = ",".join(f"celery_argsize.{target}" for target in PASSING)
    twice = dict.fromkeys(names.split(","), 2)

    def broke_twice() -> bool:
        # some code only runs if there is something to read
        patient.send("task_0", "task_1", runs=1)
        return patient.hits() == twice

    with running(patient.start(settings={"shutdown_timeout": 40}, broken=names, times=2)):
        patient.send("task_0", "task_1", runs=50)
        wait_until(broke_twice, what="each fault twice", timeout=60)  # a second after each
        patient.end()
        complaints = patient.complaints(60)
    assert not complaints, json.dumps(complaints, indent=1)
    counted = patient.counted()
    count, errors = (sum(column) for column in zip(*counted.values(), strict=True))
    assert (count, errors) == (len(patient.sent) - 2, 2), counted


@pytest.mark.slow
def test_threads_of_the_worker_itself(patient: Patient) -> None:
    names = "worker.region:Region.count,worker.notes:LocalNotes.send,worker.notes:LocalNotes.read,"
    names += "figures.counters:Tally.merge"
    names = ",".join(f"celery_argsize.{target}" for target in names.split(","))
    with running(patient.start("-P", "threads", broken=names, times=2)):
        patient.send("task_0")
        patient.end()
        complaints = patient.complaints()
    assert not complaints, json.dumps(complaints, indent=1)
    assert patient.hits() == dict.fromkeys(names.split(","), 2)
    assert sum(sum(counts) for counts in patient.counted().values()) == RUNS


@pytest.mark.slow
def test_a_reset_ends_although_a_workers_part_in_it_raises(patient: Patient) -> None:
    names = "celery_argsize.worker.flusher:Flusher.flush,celery_argsize.worker.flusher:Flusher.release"
    with running(patient.start(broken=names)):
        patient.send("task_0")
        patient.wait_for_results()
        wait_until(patient.counted, what="the figures")
        result = celery_argsize.reset_metrics(patient.scene.producer)
        assert result.workers == ()
        assert patient.counted() == {}
        patient.send("task_1")
        patient.end()
        complaints = patient.complaints()
    assert not complaints, json.dumps(complaints, indent=1)
    assert patient.hits()["celery_argsize.worker.flusher:Flusher.flush"] == 1
    assert patient.counted()["task_1"] == (RUNS, 0)
