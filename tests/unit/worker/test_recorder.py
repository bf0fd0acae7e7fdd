"""A recorder tells the main process of what is rare, and not of the same again with each run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from celery import Celery

from celery_argsize.figures.counters import rules_of
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import EMPTY, Measurement, Part
from celery_argsize.settings import Settings
from celery_argsize.worker import recorder as recorder_module
from celery_argsize.worker.notes import LocalNotes
from celery_argsize.worker.recorder import Recorder
from celery_argsize.worker.shared_counters import SharedCounters

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL: Final = Part(Size(10, 10), "intact", 10, 1)
LARGE: Final = Part(Size(2000, 2000), "intact", 900, 1)
LONG_REPR: Final = Part(Size(10, 10), "intact", 2000, 1)


@pytest.fixture(autouse=True)
def _a_second_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "AGAIN", 3600.0)


class Scene:
    """A process that counts, and what it tells."""

    def __init__(self) -> None:
        settings = Settings(log_large_tasks=False)
        rules = rules_of(settings)
        self.notes = LocalNotes()
        self.counters = SharedCounters(rules, 10)
        self.recorder = Recorder(Celery(set_as_current=False), settings, rules, self.counters, self.notes)
        self.runs = 0

    def count(self, args: Part, kwargs: Part = EMPTY, task: str = "scan") -> list[dict[str, Any]]:
        """Count a run. Returns the notes about it."""
        self.runs += 1
        self.recorder.add(Measurement(task, f"id-{self.runs}", args, kwargs, 1.5, "web"))
        return self.notes.read()

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


def test_kinds_of_runs_that_take_turns_are_each_told_once_in_a_while(scene: Scene) -> None:
    scene.count(LARGE)
    notes = [note for _ in range(50) for part in (LONG_REPR, SMALL, LARGE) for note in scene.count(part)]
    (note,) = notes
    assert {key.partition(":")[0] for key in note["sightings"]} == {"seen", "whole"}


def test_a_run_to_be_written_at_once_is_told_each_time(scene: Scene) -> None:
    huge = LARGE._replace(size=Size(2_000_000, 2_000_000))
    assert [note["at_once"] for _ in range(3) for note in scene.count(huge)] == [True] * 3
