"""A recorder tells the main process of what is rare, and not of the same again with each run."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import pytest
from celery import Celery
from celery.utils.threads import _FastLocalStack, _LocalStack  # USE_FAST_LOCALS chooses one

from celery_argsize.figures.counters import rules_of
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import EMPTY, Measurement, Part
from celery_argsize.settings import Settings
from celery_argsize.worker import recorder as recorder_module, region as region_module
from celery_argsize.worker.notes import LocalNotes
from celery_argsize.worker.recorder import Recorder, request_of
from celery_argsize.worker.region import OWNER
from celery_argsize.worker.shared_counters import SharedCounters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.worker.region import Region

SMALL: Final = Part(Size(10, 10), "intact", 10, 1)
LARGE: Final = Part(Size(2000, 2000), "intact", 900, 1)
LONG_REPR: Final = Part(Size(10, 10), "intact", 2000, 1)


@pytest.fixture(autouse=True)
def _a_second_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "AGAIN", 3600.0)


def scan(_: str) -> None:
    """A task."""


class Scene:
    """A process that counts, and what it tells."""

    def __init__(self) -> None:
        settings = Settings(log_large_tasks=False)
        rules = rules_of(settings)
        self.notes = LocalNotes()
        self.counters = SharedCounters(rules, 10)
        app = Celery(set_as_current=False)
        self.task = app.task(name="scan")(scan)
        app.finalize()
        self.recorder = Recorder(app, settings, rules, self.counters, self.notes)
        self.runs = 0

    @property
    def region(self) -> Region:
        region = self.counters.own
        assert region is not None
        return region

    def run(self, args: Part, kwargs: Part = EMPTY, task: str = "scan") -> Measurement:
        self.runs += 1
        return Measurement(task, f"id-{self.runs}", args, kwargs, 1.5, "web")

    def count(self, args: Part, kwargs: Part = EMPTY, task: str = "scan") -> list[dict[str, Any]]:
        """Count a run. Returns the notes about it."""
        self.recorder.add(self.run(args, kwargs, task))
        return self.notes.read()

    def receive(self, args: list[Any], origin: str) -> None:
        """Count a run as the signal does."""
        self.task.push_request(id="id", origin=origin, argsrepr=repr((*args,)), kwargsrepr="{}")
        try:
            self.recorder.on_task_prerun(task=self.task, task_id="id", args=args, kwargs={})
        finally:
            self.task.pop_request()

    def maxima(self, chars: int) -> dict[str, int]:
        """Count a run with args of that size. Returns the largest sizes that were told."""
        notes = self.count(SMALL._replace(size=Size(chars, chars)))
        return notes[0]["maxima"] if notes else {}


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.counters.close()


def test_a_largest_run_is_told_once_although_maxima_begin_anew_with_each_reading(scene: Scene) -> None:
    assert scene.maxima(10) == {"args.max_chars": 10}
    assert scene.maxima(9) == {}
    scene.counters.begin_epoch()
    assert scene.maxima(9) == {}, "the largest of this epoch, but not of all"
    assert scene.maxima(10) == {}
    assert scene.maxima(11) == {"args.max_chars": 11}


def test_after_a_reset_largest_runs_are_told_anew(scene: Scene) -> None:
    scene.maxima(10)
    scene.counters.begin_epoch()
    scene.counters.note_reset()
    assert scene.maxima(5) == {"args.max_chars": 5}
    assert scene.maxima(4) == {}


def test_after_a_while_a_smaller_one_is_told_too(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may not have heard of a reset."""
    monkeypatch.setattr(recorder_module, "RECORD_AGAIN", 0.0)
    scene.maxima(20)
    scene.counters.begin_epoch()
    assert scene.maxima(5) == {"args.max_chars": 5}


def test_args_and_kwargs_have_their_own_largest_runs(scene: Scene) -> None:
    scene.maxima(10)
    (note,) = scene.count(SMALL._replace(size=Size(3, 3)), SMALL)
    assert note["maxima"] == {"kwargs.max_chars": 10}
    assert scene.maxima(10) == {}


def test_each_task_has_its_own(scene: Scene) -> None:
    scene.count(SMALL)
    (note,) = scene.count(SMALL, task="other")
    assert note["task"] == "other"
    assert note["maxima"] == {"args.max_chars": 10}


def test_of_two_threads_that_count_before_either_tells_both_are_told(scene: Scene) -> None:
    runs = [scene.run(SMALL._replace(size=Size(chars, chars))) for chars in (100, 200)]
    tells = [scene.recorder._count(scene.region, run.task, run.args, run.kwargs) for run in runs]
    for run, tell in zip(runs, tells, strict=True):
        scene.recorder._tell(scene.region, run.task, tell, lambda run=run: run)  # type: ignore[misc]
    assert [note["maxima"]["args.max_chars"] for note in scene.notes.read()] == [100, 200]


def test_a_largest_run_is_told_although_a_new_epoch_began_meanwhile(scene: Scene) -> None:
    run = scene.run(SMALL)
    tell = scene.recorder._count(scene.region, run.task, run.args, run.kwargs)
    scene.counters.begin_epoch()
    assert not scene.recorder._told.knows(run.task, scene.region, time.monotonic())
    scene.recorder._tell(scene.region, run.task, tell, lambda: run)
    assert scene.notes.read()[0]["maxima"] == {"args.max_chars": 10}


def test_hosts_are_told_although_each_run_is_the_first_of_its_epoch(scene: Scene) -> None:
    hosts = set()
    for number in range(8):
        scene.counters.begin_epoch()
        scene.receive(["x"], f"gen1@{'ab'[number % 2]}")
        hosts |= {note["host"] for note in scene.notes.read()}
    assert hosts == {"a", "b"}


def test_a_region_that_another_process_has_claimed_is_left_whatever_runs(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "AGAIN", 0.0)
    scene.receive(["x" * 5000], "")
    scene.region.words[OWNER] = -1
    scene.receive(["x" * 5000], "")
    assert scene.region.is_mine(), "claimed anew"


@pytest.mark.parametrize("build", ["compiled", "pure"])
@pytest.mark.parametrize("header", ["", "(", None, 5])
def test_what_is_no_repr_is_unknown(scene: Scene, build: str, header: object, monkeypatch: pytest.MonkeyPatch) -> None:
    if build == "pure":
        monkeypatch.setattr(region_module, "compiled", None)
    scene.task.push_request(id="id", origin="", argsrepr=header, kwargsrepr="{}")
    scene.recorder.on_task_prerun(task=scene.task, task_id="id", args=[1], kwargs={})
    ((_, stats),) = scene.counters.differences()
    verdict = "custom" if header == "(" else "unknown"
    assert (stats.counts["count"], stats.counts[f"args.{verdict}"], stats.counts["errors"]) == (1, 1, 0)


def test_kinds_of_runs_that_take_turns_are_each_told_once_in_a_while(scene: Scene) -> None:
    scene.count(LARGE)
    notes = [note for _ in range(50) for part in (LONG_REPR, SMALL, LARGE) for note in scene.count(part)]
    (note,) = notes
    assert {key.partition(":")[0] for key in note["sightings"]} == {"seen", "whole"}


def test_a_run_to_be_written_at_once_is_told_each_time(scene: Scene) -> None:
    huge = LARGE._replace(size=Size(2_000_000, 2_000_000))
    assert [note["at_once"] for _ in range(3) for note in scene.count(huge)] == [True] * 3


@pytest.mark.parametrize("stack", [_LocalStack, _FastLocalStack])
def test_the_request_is_the_one_of_the_run_that_this_thread_is_in(stack: Any, scene: Scene) -> None:
    task: Any = scene.task
    task.request_stack = stack()
    nothing = task.request
    assert request_of(task) is nothing, "what Celery gives where nothing runs"
    for request in ("outer", "inner"):
        task.push_request(id=request)
        assert request_of(task) is task.request
        assert request_of(task).id == request
    with ThreadPoolExecutor(1) as other:
        assert other.submit(request_of, task).result() is nothing
    task.pop_request()
    assert request_of(task).id == "outer"
    task.pop_request()
    assert request_of(task) is nothing
