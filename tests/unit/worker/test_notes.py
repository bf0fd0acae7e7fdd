"""Notes go to the main process through a real pipe: they may be lost, but they block nobody."""

from __future__ import annotations

import fcntl
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from celery import Celery
from support.counting import end_of, fork

from celery_argsize.figures.counters import rules_of
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import ID_BYTES, NAME_BYTES, ORIGIN_BYTES, Measurement, Part
from celery_argsize.measuring.repr_shape import Shape
from celery_argsize.settings import Settings
from celery_argsize.worker.notes import LocalNotes, NoteWriter, PipeNotes
from celery_argsize.worker.recorder import Recorder
from celery_argsize.worker.shared_counters import SharedCounters

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery_argsize.worker.notes import Note

NOTE: Final[dict[str, Any]] = {"task": "scan", "id": "id-1", "time": 1.5, "maxima": {"args.max_chars": 3000}}


@pytest.fixture
def pipe() -> Iterator[PipeNotes]:
    notes = PipeNotes()
    yield notes
    notes.close()


def all_of(notes: PipeNotes | LocalNotes) -> list[Note]:
    """All notes that wait, however many reads they take."""
    found: list[Note] = []
    while more := notes.read():
        found += more
    return found


def test_notes_of_children_arrive_whole_and_each_child_s_in_order(pipe: PipeNotes) -> None:
    def send(child: int) -> None:
        for number in range(50):
            pipe.send({"child": child, "number": number})

    for pid in [fork(lambda child=child: send(child)) for child in range(6)]:  # type: ignore[misc]
        assert end_of(pid) == 0
    notes = all_of(pipe)
    assert len(notes) == 300
    for child in range(6):
        assert [note["number"] for note in notes if note["child"] == child] == [*range(50)]


def test_a_full_pipe_loses_notes_and_blocks_nobody(pipe: PipeNotes) -> None:
    begun = time.monotonic()
    for number in range(20_000):  # several times the pipe
        pipe.send(NOTE | {"number": number})
    assert time.monotonic() - begun < 10
    notes = all_of(pipe)
    assert [note["number"] for note in notes] == [*range(len(notes))], "the first ones, each whole"
    assert 0 < len(notes) < 20_000
    pipe.send(NOTE)
    assert pipe.read() == [NOTE], "there is room again"


def longest_note() -> Note:
    """What the recorder tells of a run with the longest names and the largest figures there are."""
    notes: list[Note] = []

    class Kept(LocalNotes):
        def send(self, note: Note) -> None:
            notes.append(note)

    settings = Settings(write_at_once_bytes=1)
    app, rules = Celery("longest", set_as_current=False), rules_of(settings)
    # "\x7f" and characters beyond ASCII take the most room in JSON
    name, task_id, host = ("\u0100" * (NAME_BYTES // 2), "i" * 39, "\u0100" * (ORIGIN_BYTES // 2))
    part = Part(Size(2**40, 2**40), "both", 2**31, 100, 2**31, Shape(*[2**40] * 10))
    recorder = Recorder(app, settings, rules, SharedCounters(rules, 10), Kept())
    recorder.add(Measurement(name, task_id, part, part, time.time(), host))
    assert len(task_id) <= ID_BYTES
    (note,) = notes
    assert note["maxima"]
    assert note["exemplars"]
    assert note["sightings"]
    return note


def test_the_longest_note_arrives(pipe: PipeNotes) -> None:
    note = longest_note()
    pipe.send(note)
    (read,) = pipe.read()
    assert read["task"] == note["task"]
    assert read["maxima"] == note["maxima"]


def test_a_note_that_could_be_torn_is_not_sent_at_all(pipe: PipeNotes) -> None:
    pipe.send(NOTE)
    pipe.send({"text": "x" * select.PIPE_BUF})
    pipe.send(NOTE)
    assert all_of(pipe) == [NOTE, NOTE]


@pytest.mark.parametrize("damaged", [b"", b"no JSON", b'{"task": "sc', b"\xff\xfe", b"[" * 3000, b"\0" * 50])
def test_damaged_bytes_lose_no_other_note(pipe: PipeNotes, damaged: bytes) -> None:
    pipe.send(NOTE)
    os.write(pipe._fd, damaged + b"\n")
    pipe.send(NOTE)
    assert [note for note in all_of(pipe) if note == NOTE] == [NOTE, NOTE]


def test_half_a_note_waits_for_its_other_half(pipe: PipeNotes) -> None:
    os.write(pipe._fd, b'{"a":')
    assert pipe.read() == []
    os.write(pipe._fd, b"1}\n")
    assert pipe.read() == [{"a": 1}]


def test_a_spawned_child_opens_the_pipe_by_its_path(tmp_path: Path) -> None:
    path = str(tmp_path / "notes")
    notes = PipeNotes(path)

    def child() -> None:
        NoteWriter(os.open(path, os.O_WRONLY | os.O_NONBLOCK)).send(NOTE)

    assert end_of(fork(child)) == 0
    assert notes.read() == [NOTE]
    notes.close()


def test_the_main_process_gone_is_survived(pipe: PipeNotes) -> None:
    os.close(pipe._read_fd)
    for _ in range(10):
        pipe.send(NOTE)
    pipe._read_fd = os.open(os.devnull, os.O_RDONLY)


@pytest.mark.parametrize("kind", [PipeNotes, LocalNotes])
def test_wait_returns_for_a_note_and_for_a_wake_and_in_time_without(kind: type[PipeNotes | LocalNotes]) -> None:
    notes = kind()
    begun = time.monotonic()
    for act in (notes.wake, lambda: notes.send(NOTE)):
        timer = threading.Timer(0.05, act)
        timer.start()
        notes.wait(60)
        timer.join()
        notes.read()
    assert time.monotonic() - begun < 30
    begun = time.monotonic()
    notes.wait(0.05)
    assert 0.04 <= time.monotonic() - begun < 10
    notes.close()


def test_a_pipe_full_of_notes_wakes_all_the_same(pipe: PipeNotes) -> None:
    for _ in range(20_000):
        pipe.send(NOTE)
    pipe.wake()
    begun = time.monotonic()
    pipe.wait(60)
    assert time.monotonic() - begun < 30


def test_the_pipe_is_no_matter_of_programs_that_a_task_starts(pipe: PipeNotes) -> None:
    for fd in (pipe._fd, pipe._read_fd):
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_within_one_process_notes_of_threads_are_bounded_and_the_latest_stay() -> None:
    notes = LocalNotes()

    def send() -> None:
        for number in range(5000):
            notes.send({"number": number})

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = all_of(notes)
    assert len(found) == 1000
    assert found[-1] == {"number": 4999}
    assert notes.read() == []
