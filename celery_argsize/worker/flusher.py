"""Two threads of a worker's main process: one empties the handoff, one writes to the store.

So a slow write does not fill the pipe. Other threads ask the writing one to flush
or to release. A store adds each batch once, however often it is sent.
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
from celery_argsize.figures.counters import Figures, Tally, TaskStats
from celery_argsize.stores.base import Batch, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery_argsize.settings import Settings
    from celery_argsize.worker.handoff import Handoff


class Flusher:
    """Moves measurements from a handoff to a store."""

    #: Seconds in which measurements pile up before they are read.
    GATHER: Final = 0.05
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

    def __init__(self, handoff: Handoff, store: Store, settings: Settings, writer: str) -> None:
        self._handoff = handoff
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
        self._attention = threading.Event()
        self._stopping = threading.Event()
        #: Guards the tallies and the handoff's reading end.
        #: Never held while waiting.
        self._lock = threading.Lock()
        self._closed = False
        self._writer_thread = threading.Thread(target=self._write_on, name="celery-argsize", daemon=True)
        self._reader_thread = threading.Thread(target=self._read_on, name="celery-argsize-intake", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self._writer_thread.start()
        self._reader_thread.start()

    def flush(self, timeout: float, *, hold: float = 0.0) -> bool:
        """Write all that was measured, then nothing for *hold* seconds. Whether done in *timeout* seconds."""
        return self._request(partial(self._write_and_hold, hold), timeout)

    def release(self, timeout: float, *, task: str | None = None) -> bool:
        """End a hold and forget own figures of *task*, or all. Whether done in *timeout* seconds."""
        return self._request(partial(self._release, task), timeout)

    def read(self, _fields: tuple[str, ...] = ()) -> Figures:
        """What this worker measured, written or not; all fields. ``updated``: its last write."""
        with self._lock:
            tally, unwritten = self._own.copy(), self._unwritten
            tally.merge(self._pending.tasks.items())
        return Figures(self._app_name, tally.tasks, self._since, self._last_flush, self._all_failures, unwritten)

    def stop(self, timeout: float) -> int:
        """Write the rest and end the threads within *timeout* seconds. Return the runs not written."""
        self._deadline = time.monotonic() + timeout
        self._stopping.set()
        self._attention.set()
        self._handoff.wake()
        self._writer_thread.join(timeout + 0.5)
        self._reader_thread.join(0.5)
        with self._failure_log.caught():
            self._drain()
        with self._lock:
            self._closed = True  # another file may get its descriptors
            self._handoff.close(in_use=self._writer_thread.is_alive() or self._reader_thread.is_alive())
            return self._unwritten

    @property
    def _unwritten(self) -> int:
        """Task runs that the store has not confirmed."""
        return self._pending.count + (Tally.count_of(self._batch.tasks) if self._batch else 0)

    def _request(self, act: Callable[[], bool], timeout: float) -> bool:
        """The result of *act* in the writing thread; ``False``: none in *timeout* seconds."""
        if not self._writer_thread.is_alive():
            return False
        answer: Future[bool] = Future()
        self._requests.append((act, answer))
        self._attention.set()
        wait([answer], timeout)
        return answer.done() and answer.result()

    # -- the reading thread

    def _read_on(self) -> None:
        while not self._stopping.is_set():
            with self._failure_log.caught():
                self._handoff.wait()
            self._stopping.wait(self.GATHER)
            with self._failure_log.caught():
                self._drain()
            if self._has_pending:
                self._attention.set()

    def _drain(self) -> None:
        with self._lock:
            if not self._closed:
                self._handoff.drain(self._pending)

    @property
    def _has_pending(self) -> bool:
        return bool(self._pending or self._pending.origins.hosts)

    # -- the writing thread

    def _write_on(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
            except Exception as exc:  # noqa: BLE001 - the thread must live on
                self._failure_log.report(exc)
                self._stopping.wait(self._interval)
        self._finish()

    def _turn(self) -> None:
        self._attention.wait(self._pause())
        self._attention.clear()
        if time.monotonic() >= self._next_flush:
            self._deliver()
        while self._requests and time.monotonic() >= self._may_try_from:
            act, answer = self._requests.popleft()
            answer.set_result(act())

    def _pause(self) -> float | None:
        """Seconds until a write or request is due. ``None``: none is."""
        if self._requests:
            due = self._may_try_from
        elif self._has_pending or self._batch is not None:
            due = max(self._next_flush, self._held_until)
        else:
            return None
        return max(0.0, due - time.monotonic())

    def _write_and_hold(self, seconds: float) -> bool:
        self._held_until = 0.0
        self._drain()
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
        now = time.monotonic()
        if now < self._held_until:
            return False
        self._next_flush = now + self._interval
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
            self._attention.clear()
            due = min(max(self._may_try_from, self._held_until), self._deadline)
            self._attention.wait(max(0.0, due - time.monotonic()))
            try:
                self._drain()
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
