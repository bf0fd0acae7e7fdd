"""The main process's thread: drain what tasks handed over, add it up, write it in batches, and never give up on one.

One thread does all of it; other threads leave a request and wait for its answer. While that thread waits for a store
that is slow or frozen, a second one keeps draining, so that children always find room. No task waits for either.
How batches are kept from counting twice is the store's business (``stores``).
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from celery_argsize.failure_log import FailureLog
from celery_argsize.figures.counters import Figures, Tally
from celery_argsize.stores.base import Batch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.figures.counters import TaskStats
    from celery_argsize.settings import Settings
    from celery_argsize.stores.base import Store
    from celery_argsize.worker.handoff import Handoff


@dataclass(slots=True)
class _Request:
    """What another thread asks of the flusher: write everything now, and perhaps more."""

    hold: float = 0.0
    """Seconds to write nothing afterwards, unless released."""
    release: bool = False
    forget: bool = False
    """On release: forget this worker's own figures, of *task* or all."""
    task: str | None = None
    done: threading.Event = field(default_factory=threading.Event)
    written: bool = False


class Flusher:
    """Takes measurements from a handoff to a store."""

    #: Seconds for which measurements gather before they are drained.
    GATHER: Final = 0.05
    #: Tasks and hosts in one batch: keeps one Lua call short.
    BATCH_TASKS: Final = 100
    BATCH_HOSTS: Final = 20
    #: Seconds between two attempts while they fail: at least this, whoever asks for one; the first wait is the flush
    #: interval, each next one twice as long, up to the longest.
    MIN_BACKOFF: Final = 1.0
    MAX_BACKOFF: Final = 30.0

    def __init__(self, handoff: Handoff, store: Store, settings: Settings, writer: str) -> None:
        self._handoff = handoff
        self._store = store
        self._interval = settings.flush_interval
        self._writer = writer
        self._pending = Tally(settings.max_task_names)
        self._own = Tally(settings.max_task_names)
        self._thinning = Thinning(settings.max_task_names)
        self._app_name = settings.app_name
        #: What the keys of its figures begin with: tells the workers of one app from those of another.
        self.base = settings.base
        self._batch: Batch | None = None
        self._sequence = 0
        self._failures = 0  # since it last could write
        self._all_failures = 0
        self._last_flush: float | None = None
        self._next_flush = 0.0
        self._last_attempt = 0.0
        self._held_until = 0.0
        self._since = time.time()
        self._requests: deque[_Request] = deque()
        self._attention = threading.Event()
        self._deadline: float | None = None
        #: Between this class's threads, for the handoff's reading end and what is pending. Never held while waiting.
        self._lock = threading.Lock()
        self._closed = False
        self._writing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="celery-argsize", daemon=True)
        self._relief = threading.Thread(target=self._relieve, name="celery-argsize-relief", daemon=True)
        self._failure_log = FailureLog("figures are not being written, they are kept and tried again")

    # -- for other threads -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads."""
        self._thread.start()
        self._relief.start()

    def flush(self, timeout: float, *, hold: float = 0.0) -> bool:
        """Write everything measured up to now; then, for *hold* seconds, nothing. Whether it was written in time."""
        return self._ask(_Request(hold=hold), timeout)

    def release(self, timeout: float, *, forget: bool = False, task: str | None = None) -> bool:
        """End a hold; with *forget*, this worker's own figures (of *task*, or all) start afresh."""
        return self._ask(_Request(release=True, forget=forget, task=task), timeout)

    def stop(self, timeout: float) -> int:
        """Write what is left and end the thread, within *timeout* seconds; how many task runs could not be written."""
        self._deadline = time.monotonic() + timeout
        self._call()
        self._thread.join(timeout + 0.5)
        self._try_to_drain()
        with self._lock:
            self._closed = True  # so that nobody reads from descriptors that are another's by then
            if not self._thread.is_alive():
                self._handoff.close()
            return self._left

    @property
    def _left(self) -> int:
        """Task runs that are measured and not written yet."""
        return self._pending.count + (Tally.count_of(self._batch.tasks) if self._batch else 0)

    def own_figures(self) -> Figures:
        """What this worker measured, written or not; ``updated`` is when it last wrote."""
        with self._lock:
            tasks, waiting = self._own.copy(), self._left
            tasks.merge(self._pending.tasks.items())
        return Figures(self._app_name, tasks.tasks, self._since, self._last_flush, self._all_failures, waiting)

    def _ask(self, request: _Request, timeout: float) -> bool:
        if not self._thread.is_alive():
            return False
        self._requests.append(request)
        self._call()
        return request.done.wait(timeout) and request.written

    def _call(self) -> None:
        self._attention.set()
        with self._lock:
            if not self._closed:
                self._handoff.wake()

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._deadline is None:
            try:
                self._turn()
            except Exception as exc:  # noqa: BLE001 - the thread must live: what it holds is not lost
                self._failure_log.report(exc)
                self._attention.wait(self._interval)
        self._finish(self._deadline)

    def _turn(self) -> None:
        idle = not self._anything and self._batch is None and not self._requests
        self._handoff.wait(None if idle else 0.0)
        due = max(self._next_flush, self._held_until) - time.monotonic()
        self._attention.wait(self.GATHER if idle else min(max(due, 0.0), 2 * self.GATHER))
        self._attention.clear()
        self._drain()
        if time.monotonic() >= self._next_flush:
            self._deliver()
        while self._requests and (self._requests[0].release or time.monotonic() >= self._may_try_from):
            self._answer(self._requests.popleft())

    @property
    def _anything(self) -> bool:
        return bool(self._pending or self._pending.origins.hosts)

    def _drain(self) -> None:
        with self._lock:
            if not self._closed:
                self._handoff.drain(self._pending)

    def _try_to_drain(self) -> None:
        try:
            self._drain()
        except Exception as exc:  # noqa: BLE001 - as in _run
            self._failure_log.report(exc)

    def _relieve(self) -> None:
        """Drain while the other thread writes, if that takes long."""
        while self._deadline is None:
            self._writing.wait()
            time.sleep(2 * self.GATHER)  # nearly all writes are over by then
            if self._writing.is_set() and self._deadline is None:
                self._try_to_drain()

    @property
    def _may_try_from(self) -> float:
        """When the next attempt may be made, at the earliest (monotonic)."""
        return self._last_attempt + self.MIN_BACKOFF if self._failures else 0.0

    def _answer(self, request: _Request) -> None:
        if request.release:
            self._held_until = 0.0
            if request.forget:
                self._forget(request.task)
            request.written = True
        else:
            self._held_until = 0.0
            self._drain()  # what came since this turn began was handed over before the request, too
            request.written = self._deliver()
            self._held_until = time.monotonic() + request.hold if request.hold else 0.0
        request.done.set()

    def _forget(self, task: str | None) -> None:
        self._own.clear(task)
        self._thinning.forget(task)
        if task is None:
            self._since = time.time()
        if not self._store.shared:  # nobody else can
            self._store.reset(task)

    def _deliver(self) -> bool:
        """Write batches until nothing is pending; whether that came true."""
        now = time.monotonic()
        if now < self._held_until:
            return False
        self._next_flush = now + self._interval
        while batch := self._seal():
            self._last_attempt = time.monotonic()
            self._writing.set()
            try:
                self._store.apply(batch, self._failures)
            except Exception as exc:  # noqa: BLE001 - a StoreError; any other is our own fault, and no better
                self._back_off(exc)
                return False
            finally:
                self._writing.clear()
            self._batch, self._last_flush = None, time.time()
            if self._failures:
                self._failures = 0
                self._failure_log.over("figures are being written again, nothing was lost")
        return True

    def _back_off(self, error: Exception) -> None:
        self._failures += 1
        self._all_failures += 1
        wait = min(self.MAX_BACKOFF, max(self.MIN_BACKOFF, self._interval) * 2 ** min(self._failures - 1, 10))
        # the jitter spreads a fleet's attempts
        self._next_flush = time.monotonic() + wait * random.uniform(1.0, 1.5)  # noqa: S311
        self._failure_log.report(error)

    def _seal(self) -> Batch | None:
        """The batch to write next: the one that has had no answer yet, else a new one; ``None`` when all is written."""
        with self._lock:
            if self._batch is None and self._anything:
                self._sequence += 1
                tasks = self._pending.take(self.BATCH_TASKS)
                origins = self._pending.origins.take(self.BATCH_HOSTS)
                self._batch = Batch(self._writer, self._sequence, tasks, origins)
                self._own.merge(tasks.items())
                self._thinning.thin(tasks)
        return self._batch

    def _finish(self, deadline: float) -> None:
        """Write what is left, until *deadline* (monotonic); a hold that outlasts it counts less than the figures."""
        self._held_until = min(self._held_until, deadline - 1.0)
        while True:
            self._attention.clear()
            now = time.monotonic()
            may_try_from = max(self._may_try_from, self._held_until)
            self._attention.wait(max(0.0, min(may_try_from, deadline) - now))
            try:
                self._drain()
                if self._deliver():
                    break
            except Exception as exc:  # noqa: BLE001 - as in _run
                self._last_attempt = time.monotonic()
                self._back_off(exc)
            if time.monotonic() >= deadline:
                break
        while self._requests:
            self._requests.popleft().done.set()
        self._writing.set()  # so that the other thread sees that it is over
        with suppress(Exception):  # all is written, or told
            self._store.close()


class Thinning:
    """Of each task and bucket: an exemplar is written if the one before is old enough. So rare ones always are."""

    #: Seconds between two exemplars of a bucket.
    EVERY: Final = 10.0

    def __init__(self, max_names: int) -> None:
        self._max_names = max_names
        self._written: dict[str, dict[str, float]] = {}

    def thin(self, tasks: Mapping[str, TaskStats]) -> None:
        """Take from *tasks*, which are about to be written, the exemplars that come too soon."""
        for name, stats in tasks.items():
            if stats.exemplars and (name in self._written or len(self._written) < self._max_names):
                written = self._written.setdefault(name, {})
                due = {
                    field: seen
                    for field, seen in stats.exemplars.items()
                    if field not in written or seen.time >= written[field] + self.EVERY
                }
                written.update({field: seen.time for field, seen in due.items()})
                stats.exemplars = due

    def forget(self, task: str | None = None) -> None:
        """As nothing was written of *task*, or of any: after a reset."""
        if task is None:
            self._written.clear()
        else:
            self._written.pop(task, None)
