"""Two threads of a worker's main process: one takes in what tasks hand over, one writes it to the store.

So children find room in the pipe, however long a write takes. Other threads send requests to the
writing one. That no batch counts twice is the work of ``stores``.
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
from celery_argsize.figures.counters import Figures, Tally
from celery_argsize.stores.base import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery_argsize.figures.counters import TaskStats
    from celery_argsize.settings import Settings
    from celery_argsize.stores.base import Store
    from celery_argsize.worker.handoff import Handoff


class Flusher:
    """Moves what tasks hand over to a store."""

    #: Seconds in which measurements gather before they are taken in together.
    GATHER: Final = 0.05
    #: Tasks and sending hosts in one batch, at most: one Lua call stays short.
    BATCH_TASKS: Final = 100
    BATCH_HOSTS: Final = 20
    #: Seconds between failing attempts to write: the flush interval, then twice as long each time, up to the maximum.
    #: A request may try after the minimum.
    MIN_BACKOFF: Final = 1.0
    MAX_BACKOFF: Final = 30.0

    def __init__(self, handoff: Handoff, store: Store, settings: Settings, writer: str) -> None:
        self._handoff = handoff
        self._store = store
        self._writer = writer
        self._interval = settings.flush_interval
        self._app_name = settings.app_name
        #: What the keys of its figures begin with.
        self.base = settings.base
        self._pending = Tally(settings.max_task_names)
        self._batch: Batch | None = None  # not confirmed yet
        self._own = Tally(settings.max_task_names)  # all that ever was in a batch
        self._exemplars = ExemplarFilter(settings.max_task_names)
        self._sequence = self._failures = self._all_failures = 0  # failures: since the last success
        self._since = time.time()
        self._last_flush: float | None = None
        self._next_flush = self._may_try_from = self._held_until = self._deadline = 0.0  # monotonic seconds
        self._failure_log = FailureLog("figures are not being written, they are kept and tried again")
        self._requests: deque[tuple[Callable[[], bool], Future[bool]]] = deque()
        self._attention = threading.Event()
        self._stopping = threading.Event()
        #: Guards the handoff's reading end and the tallies. Never held while waiting.
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="celery-argsize", daemon=True)
        self._intake = threading.Thread(target=self._take_in, name="celery-argsize-intake", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self._thread.start()
        self._intake.start()

    def flush(self, timeout: float, *, hold: float = 0.0) -> bool:
        """Write all that was measured so far, then nothing for *hold* seconds. Whether it was in time."""
        return self._ask(partial(self._write_and_hold, hold), timeout)

    def release(self, timeout: float, *, task: str | None = None) -> bool:
        """End a hold and forget this worker's own figures of *task*, or all. Whether that was done in time."""
        return self._ask(partial(self._release, task), timeout)

    def own_figures(self) -> Figures:
        """What this worker measured, written or not. ``updated`` is when it last wrote."""
        with self._lock:
            tally, unwritten = self._own.copy(), self._unwritten
            tally.merge(self._pending.tasks.items())
        return Figures(self._app_name, tally.tasks, self._since, self._last_flush, self._all_failures, unwritten)

    def stop(self, timeout: float) -> int:
        """Write what is left and end the threads, within *timeout* seconds. How many task runs were not written."""
        self._deadline = time.monotonic() + timeout
        self._stopping.set()
        self._attention.set()
        self._handoff.wake()
        self._thread.join(timeout + 0.5)
        self._intake.join(0.5)
        with self._failure_log.caught():
            self._drain()
        with self._lock:
            self._closed = True  # from here on its descriptors may be somebody else's
            if not (self._thread.is_alive() or self._intake.is_alive()):
                self._handoff.close()
            return self._unwritten

    @property
    def _unwritten(self) -> int:
        """Task runs that the store has not confirmed."""
        return self._pending.count + (Tally.count_of(self._batch.tasks) if self._batch else 0)

    def _ask(self, act: Callable[[], bool], timeout: float) -> bool:
        if not self._thread.is_alive():
            return False
        answer: Future[bool] = Future()
        self._requests.append((act, answer))
        self._attention.set()
        wait([answer], timeout)
        return answer.done() and answer.result()

    # -- taking in

    def _take_in(self) -> None:
        while not self._stopping.is_set():
            with self._failure_log.caught():
                self._handoff.wait(None)
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

    # -- writing

    def _write(self) -> None:
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
        """Seconds until there is something to do; ``None``: until something comes in."""
        if self._requests:
            moment = self._may_try_from
        elif self._has_pending or self._batch is not None:
            moment = max(self._next_flush, self._held_until)
        else:
            return None
        return max(0.0, moment - time.monotonic())

    def _write_and_hold(self, seconds: float) -> bool:
        self._held_until = 0.0
        self._drain()  # what was handed over before the request
        written = self._deliver()
        self._held_until = time.monotonic() + seconds
        return written

    def _release(self, task: str | None) -> bool:
        self._held_until = 0.0
        self._own.clear(task)
        self._exemplars.forget(task)
        if task is None:
            self._since = time.time()
        if not self._store.shared:  # nobody else can reset it
            self._store.reset(task)
        return True

    def _deliver(self) -> bool:
        """Write batches until nothing is pending. ``False``: a hold or a failure left some of it unwritten."""
        now = time.monotonic()
        if now < self._held_until:
            return False
        self._next_flush = now + self._interval
        while batch := self._next_batch():
            try:
                self._store.apply(batch, self._failures)
            except Exception as exc:  # noqa: BLE001 - a StoreError, or a fault of our own: it is tried again
                self._back_off(exc)
                return False
            self._batch, self._last_flush = None, time.time()
            if self._failures:
                self._failures, self._may_try_from = 0, 0.0
                self._failure_log.over("figures are being written again, nothing was lost")
        return True

    def _next_batch(self) -> Batch | None:
        """The batch that is not confirmed yet; else a new one of what is pending, if anything is."""
        with self._lock:
            if self._batch is None and self._has_pending:
                self._sequence += 1
                tasks = self._pending.take(self.BATCH_TASKS)
                origins = self._pending.origins.take(self.BATCH_HOSTS)
                self._batch = Batch(self._writer, self._sequence, tasks, origins)
                self._own.merge(tasks.items())
                self._exemplars.thin_out(tasks)
        return self._batch

    def _back_off(self, error: Exception) -> None:
        self._failures += 1
        self._all_failures += 1
        now = time.monotonic()
        pause = min(self.MAX_BACKOFF, max(self.MIN_BACKOFF, self._interval) * 2 ** min(self._failures - 1, 10))
        self._may_try_from = now + self.MIN_BACKOFF
        self._next_flush = now + pause * random.uniform(1.0, 1.5)  # noqa: S311 - so that not all workers come at once
        self._failure_log.report(error)

    def _finish(self) -> None:
        """Write what is left, until the deadline. A hold ends a second before it at the latest."""
        self._held_until = min(self._held_until, self._deadline - 1.0)
        written = False
        while not written:
            self._attention.clear()
            moment = min(max(self._may_try_from, self._held_until), self._deadline)
            self._attention.wait(max(0.0, moment - time.monotonic()))
            try:
                self._drain()
                written = self._deliver()
            except Exception as exc:  # noqa: BLE001 - it is tried again
                self._back_off(exc)
            if time.monotonic() >= self._deadline:
                break
        while self._requests:
            self._requests.popleft()[1].set_result(False)
        with suppress(Exception):
            self._store.close()


class ExemplarFilter:
    """Lets one exemplar of each task and bucket be written every ``EVERY`` seconds, so that rare ones always are."""

    EVERY: Final = 10.0

    def __init__(self, max_names: int) -> None:
        self._max_names = max_names
        self._last: dict[str, dict[str, float]] = {}  # when the last one was seen, by task and bucket

    def thin_out(self, tasks: Mapping[str, TaskStats]) -> None:
        """Drop from *tasks* the exemplars that come too soon."""
        for name, stats in tasks.items():
            if stats.exemplars and (name in self._last or len(self._last) < self._max_names):
                last = self._last.setdefault(name, {})
                for bucket, exemplar in [*stats.exemplars.items()]:
                    if exemplar.time < last.get(bucket, -math.inf) + self.EVERY:
                        del stats.exemplars[bucket]
                    else:
                        last[bucket] = exemplar.time

    def forget(self, task: str | None) -> None:
        """After a reset of *task*, or all."""
        if task is None:
            self._last.clear()
        else:
            self._last.pop(task, None)
