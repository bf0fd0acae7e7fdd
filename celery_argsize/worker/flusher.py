"""Two threads of a worker's main process: one takes in what tasks hand over, one writes it to the store.

So the pipe has room, however long a write takes. Other threads send requests to the
writing thread. The stores see to it that no batch counts twice.
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
    """Moves what tasks hand over to a store."""

    #: Seconds in which measurements gather before they are taken in together.
    GATHER: Final = 0.05
    #: The most tasks and sending hosts in one batch, which keeps its Lua call short.
    BATCH_TASKS: Final = 100
    BATCH_HOSTS: Final = 20
    #: Seconds to wait after a failed write: at first the flush interval, then twice as
    #: long each time, within these bounds. A request waits only for the lower one.
    MIN_BACKOFF: Final = 1.0
    MAX_BACKOFF: Final = 30.0
    #: Seconds between two exemplars of a task and bucket. So rare ones are always
    #: written.
    EXEMPLARS_EVERY: Final = 10.0

    def __init__(self, handoff: Handoff, store: Store, settings: Settings, writer: str) -> None:
        self._handoff = handoff
        self._store = store
        self._writer = writer
        self._interval = settings.flush_interval
        self._app_name = settings.app_name
        self.base = settings.base  # how the keys begin
        self._pending = Tally(settings.max_task_names)
        self._batch: Batch | None = None  # not confirmed yet
        self._own = Tally(settings.max_task_names)  # all batches
        self._exemplar_times: dict[str, dict[str, float]] = {}  # task → bucket → seconds
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
        """Write all that was measured, then nothing for *hold* seconds. Whether it was in time."""
        return self._ask(partial(self._write_and_hold, hold), timeout)

    def release(self, timeout: float, *, task: str | None = None) -> bool:
        """End a hold and forget this worker's own figures of *task*, or all. Whether it was in time."""
        return self._ask(partial(self._release, task), timeout)

    def own_figures(self) -> Figures:
        """What this worker measured, written or not. ``updated`` is its last write."""
        with self._lock:
            tally, unwritten = self._own.copy(), self._unwritten
            tally.merge(self._pending.tasks.items())
        return Figures(self._app_name, tally.tasks, self._since, self._last_flush, self._all_failures, unwritten)

    def read(self, fields: tuple[str, ...]) -> Figures:  # noqa: ARG002 - a store leaves the others out
        """``own_figures``, for the collector of metrics."""
        return self.own_figures()

    def stop(self, timeout: float) -> int:
        """Write the rest and end the threads within *timeout* seconds. How many runs were not written."""
        self._deadline = time.monotonic() + timeout
        self._stopping.set()
        self._attention.set()
        self._handoff.wake()
        self._thread.join(timeout + 0.5)
        self._intake.join(0.5)
        with self._failure_log.caught():
            self._drain()
        with self._lock:
            self._closed = True  # other files may get its descriptors
            self._handoff.close(in_use=self._thread.is_alive() or self._intake.is_alive())
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
        """Seconds until something is due. ``None``: nothing is, until woken."""
        if self._requests:
            moment = self._may_try_from
        elif self._has_pending or self._batch is not None:
            moment = max(self._next_flush, self._held_until)
        else:
            return None
        return max(0.0, moment - time.monotonic())

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
        if not self._store.shared:  # the caller of a reset cannot reach it
            self._store.reset(task)
        return True

    def _deliver(self) -> bool:
        """Write until nothing is pending. ``False``: stopped by a hold or a failure."""
        now = time.monotonic()
        if now < self._held_until:
            return False
        self._next_flush = now + self._interval
        while batch := self._next_batch():
            try:
                self._store.apply(batch, self._failures)
            except Exception as exc:  # noqa: BLE001 - a StoreError or a bug: it is tried again
                self._back_off(exc)
                return False
            with self._lock:
                self._batch, self._last_flush = None, time.time()
            if self._failures:
                self._failures, self._may_try_from = 0, 0.0
                self._failure_log.over("figures are being written again, nothing was lost")
        return True

    def _next_batch(self) -> Batch | None:
        """The batch that is not confirmed yet, else a new one from what is pending."""
        with self._lock:
            if self._batch is None and self._has_pending:
                self._sequence += 1
                tasks = self._pending.take(self.BATCH_TASKS)
                origins = self._pending.origins.take(self.BATCH_HOSTS)
                self._batch = Batch(self._writer, self._sequence, tasks, origins)
                self._own.merge(tasks.items())
                self._thin_out(tasks)
        return self._batch

    def _thin_out(self, tasks: Mapping[str, TaskStats]) -> None:
        """Drop from *tasks* the exemplars that come too soon."""
        for name in tasks.keys() & self._own.tasks.keys():  # which are bounded
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
        """Write the rest, until the deadline. A hold ends a second before it."""
        self._held_until = min(self._held_until, self._deadline - 1.0)
        while True:
            self._attention.clear()
            moment = min(max(self._may_try_from, self._held_until), self._deadline)
            self._attention.wait(max(0.0, moment - time.monotonic()))
            try:
                self._drain()
                if self._deliver():
                    break
            except Exception as exc:  # noqa: BLE001 - it is tried again
                self._back_off(exc)
            if time.monotonic() >= self._deadline:
                break
        while self._requests:
            self._requests.popleft()[1].set_result(False)
        with suppress(Exception):
            self._store.close()
