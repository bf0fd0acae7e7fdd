"""A thread of a worker's main process. It reads what tasks counted, once an interval, and writes it to the store.

Other threads ask it to flush or to release. A store adds each batch once, however
often it is sent.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from celery_argsize.failure_log import FailureLog
from celery_argsize.figures.counters import Exemplar, Extreme, Figures, Tally, TaskStats
from celery_argsize.figures.origins import Sighting
from celery_argsize.stores.base import Batch, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery_argsize.settings import Settings
    from celery_argsize.worker.notes import Note, Notes
    from celery_argsize.worker.shared_counters import SharedCounters


class Flusher:
    """Moves figures from a worker's shared counters to a store."""

    #: Seconds after a note that asks to write at once; and between two such writes.
    AT_ONCE: Final = 0.02
    AT_ONCE_AGAIN: Final = 0.1
    #: Seconds to wait for the note about a new maximum that was read.
    NOTE_LATE: Final = 0.002
    #: Most tasks and most sending hosts in a batch. This
    #: keeps the Lua call short.
    BATCH_TASKS: Final = 100
    BATCH_HOSTS: Final = 20
    #: Bounds of the seconds between a failed write and the next: at
    #: first the flush interval, then twice as long each time. A request
    #: waits only for the lower bound.
    MIN_BACKOFF: Final = 1.0
    MAX_BACKOFF: Final = 30.0
    #: Least seconds between two exemplars of the same task and bucket.
    EXEMPLARS_EVERY: Final = 10.0

    def __init__(self, counters: SharedCounters, notes: Notes, store: Store, settings: Settings, writer: str) -> None:
        self._counters = counters
        self._notes = notes
        self._store = store
        self._writer = writer
        self._interval = settings.flush_interval
        self._app_name = settings.app_name
        self.base = settings.base  # prefix of the Redis keys
        self._pending = Tally(settings.max_task_names)
        self._batch: Batch | None = None  # not confirmed yet
        self._own = Tally(settings.max_task_names)  # the sum of all batches
        self._exemplar_times: dict[str, dict[str, float]] = {}  # task → bucket → seconds
        self._sequence = self._all_failures = 0
        self._failures = 0  # since the last success
        self._since = time.time()
        self._last_flush: float | None = None
        self._next_flush = self._may_try_from = self._held_until = self._deadline = 0.0  # monotonic seconds
        self._failure_log = FailureLog("figures are not being written, they are kept and tried again")
        self._requests: deque[tuple[Callable[[], bool], Future[bool]]] = deque()
        self._at_once_from = 0.0  # monotonic seconds
        self._stopping = threading.Event()
        #: Guards the tallies and the reading of counters and notes. Never
        #: held for more than milliseconds.
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="celery-argsize", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def flush(self, timeout: float, *, hold: float = 0.0) -> bool:
        """Write all that was measured, then nothing for *hold* seconds. Whether done in *timeout* seconds."""
        return self._request(partial(self._write_and_hold, hold), timeout)

    def release(self, timeout: float, *, task: str | None = None) -> bool:
        """End a hold and forget own figures of *task*, or all. Whether done in *timeout* seconds."""
        return self._request(partial(self._release, task), timeout)

    def read(self, _fields: tuple[str, ...] = ()) -> Figures:
        """What this worker measured, written or not; all fields. ``updated``: its last write."""
        with self._failure_log.caught():
            self._collect()
        with self._lock:
            tally, unwritten = self._own.copy(), self._unwritten
            tally.merge(self._pending.tasks.items())
        return Figures(self._app_name, tally.tasks, self._since, self._last_flush, self._all_failures, unwritten)

    def stop(self, timeout: float) -> int:
        """Write the rest and end the thread within *timeout* seconds. Return the runs not written."""
        self._deadline = time.monotonic() + timeout
        self._stopping.set()
        self._notes.wake()
        self._thread.join(timeout + 0.5)
        with self._failure_log.caught():
            self._collect()
        with self._lock:
            if not self._thread.is_alive():
                self._closed = True  # another file may get its descriptors
                self._notes.close()
                self._counters.close()
            return self._unwritten

    @property
    def _unwritten(self) -> int:
        """Task runs that the store has not confirmed."""
        return self._pending.count + (Tally.count_of(self._batch.tasks) if self._batch else 0)

    def _request(self, act: Callable[[], bool], timeout: float) -> bool:
        """The result of *act* in the writing thread; ``False``: none in *timeout* seconds."""
        if not self._thread.is_alive():
            return False
        answer: Future[bool] = Future()
        self._requests.append((act, answer))
        self._notes.wake()
        wait([answer], timeout)
        return answer.done() and answer.result()

    # -- reading

    def _collect(self) -> None:
        """Add what was counted since the last time to the pending figures."""
        has_read = has_maxima = False
        with self._lock:
            if self._closed:
                return
            for task, stats in self._counters.differences():  # the same task may be in several regions
                self._pending.merge([(task, stats)])
                has_read, has_maxima = True, has_maxima or bool(stats.maxima)
            with self._failure_log.caught():
                if has_read:
                    self._counters.begin_epoch()
                self._take_notes()
                if has_maxima:
                    time.sleep(self.NOTE_LATE)
                    self._take_notes()

    def _take_notes(self) -> None:
        for note in self._notes.read():
            try:
                self._add_note(note)
            except Exception as exc:  # noqa: BLE001 - the others still count
                self._failure_log.report(exc)

    def _add_note(self, note: Note) -> None:
        if note.get("at_once") and not self._failures:
            self._next_flush = min(self._next_flush, max(time.monotonic() + self.AT_ONCE, self._at_once_from))
        if sightings := note.get("sightings"):
            shown = {field: Sighting(*sighting) for field, sighting in sightings.items()}
            self._pending.origins.merge({note["host"]: shown})
        counts, exemplars = note.get("counts", {}), note.get("exemplars", {})
        if counts or exemplars or note.get("maxima"):
            maxima = {field: Extreme(value, note["id"], note["time"]) for field, value in note["maxima"].items()}
            latest = {field: Exemplar(*exemplar) for field, exemplar in exemplars.items()}
            self._pending.merge([(note["task"], TaskStats(counts, maxima, latest))])

    @property
    def _has_pending(self) -> bool:
        return bool(self._pending.tasks or self._pending.origins.hosts)

    # -- writing

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._notes.wait(self._pause())
                self._turn()
            except Exception as exc:  # noqa: BLE001 - the thread must live on
                self._failure_log.report(exc)
                self._stopping.wait(self._interval)
        self._finish()

    def _turn(self) -> None:
        with self._lock, self._failure_log.caught():
            self._take_notes()
        now = time.monotonic()
        if now >= max(self._next_flush, self._held_until):
            due, self._next_flush = self._next_flush, now + self._interval
            self._at_once_from = now + self.AT_ONCE_AGAIN
            self._collect()
            # Without figures, nothing is written, and the first ones after a pause need not wait.
            if self._has_pending or self._batch is not None:
                self._deliver()
            else:
                self._next_flush = due
        while self._requests and time.monotonic() >= self._may_try_from:
            act, answer = self._requests.popleft()
            done = False
            try:
                done = act()
            finally:
                answer.set_result(done)

    def _pause(self) -> float:
        """Seconds until a write or request is due. A note comes with the first run after a pause."""
        due = self._may_try_from if self._requests else max(self._next_flush, self._held_until)
        pause = due - time.monotonic()
        return max(0.0, pause) if pause > 0 or self._requests else self._interval

    def _write_and_hold(self, seconds: float) -> bool:
        self._held_until, self._next_flush = 0.0, time.monotonic() + self._interval
        if seconds:
            self._counters.note_reset()  # a run that is counted after the reading
        self._collect()
        if seconds:
            self._counters.note_reset()  # one that was told of before the reading, and is deleted
        written = self._deliver()
        self._held_until = time.monotonic() + seconds
        return written

    def _release(self, task: str | None) -> bool:
        self._held_until = 0.0
        with self._lock:
            self._own.clear(task)
        if task is None:
            self._exemplar_times.clear()
            self._since = time.time()
        else:
            self._exemplar_times.pop(task, None)
        if not self._store.shared:  # the process that resets cannot reach it
            self._store.reset(task)
        return True

    def _deliver(self) -> bool:
        """Write all that is pending. ``False``: a hold or a failure prevented it."""
        if time.monotonic() < self._held_until:
            return False
        while batch := self._next_batch():
            try:
                self._store.apply(batch, self._failures)
            except Exception as exc:  # noqa: BLE001 - a StoreError or a bug: try again later
                self._back_off(exc)
                return False
            with self._lock:
                self._batch, self._last_flush = None, time.time()
            if self._failures:
                self._failures, self._may_try_from = 0, 0.0
                self._failure_log.over("figures are being written again, nothing was lost")
        return True

    def _next_batch(self) -> Batch | None:
        """The unconfirmed batch, or else a new one, if anything is pending."""
        with self._lock:
            if self._batch is None and self._has_pending:
                self._sequence += 1
                tasks = self._pending.take(self.BATCH_TASKS)
                origins = self._pending.origins.take(self.BATCH_HOSTS)
                self._batch = Batch(self._writer, self._sequence, tasks, origins)
                self._own.merge(tasks.items())
                self._drop_early_exemplars(tasks)
        return self._batch

    def _drop_early_exemplars(self, tasks: Mapping[str, TaskStats]) -> None:
        for name in tasks.keys() & self._own.tasks.keys():  # bounds the memory
            exemplars, times = tasks[name].exemplars, self._exemplar_times.setdefault(name, {})
            for bucket, exemplar in [*exemplars.items()]:
                if exemplar.time < times.get(bucket, -math.inf) + self.EXEMPLARS_EVERY:
                    del exemplars[bucket]
                else:
                    times[bucket] = exemplar.time

    def _back_off(self, error: Exception) -> None:
        self._failures += 1
        self._all_failures += 1
        now = time.monotonic()
        pause = min(self.MAX_BACKOFF, max(self.MIN_BACKOFF, self._interval) * 2 ** min(self._failures - 1, 10))
        self._may_try_from = now + self.MIN_BACKOFF
        self._next_flush = now + pause * random.uniform(1.0, 1.5)  # noqa: S311 - spreads the workers
        self._failure_log.report(error)

    def _finish(self) -> None:
        """Write the rest by the deadline. A hold ends a second before it."""
        self._held_until = min(self._held_until, self._deadline - 1.0)
        while True:
            due = min(max(self._may_try_from, self._held_until), self._deadline)
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                self._collect()
                if self._deliver():
                    break
            except Exception as exc:  # noqa: BLE001 - try again until the deadline
                self._back_off(exc)
            if time.monotonic() >= self._deadline:
                break
        while self._requests:
            _, answer = self._requests.popleft()
            answer.set_result(False)
        with suppress(Exception):
            self._store.close()
