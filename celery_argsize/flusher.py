"""The main process's thread: drain what tasks handed over, add it up, write it in batches, and never give up on one.

One thread does all of it, so that nothing here needs a lock: other threads leave a request and wait for its answer.
How batches are kept from counting twice is the store's business (``stores``).
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from celery_argsize.errors import StoreError
from celery_argsize.stats import Book, Figures
from celery_argsize.stores.base import Batch
from celery_argsize.trouble import Trouble

if TYPE_CHECKING:
    from celery_argsize.config import Settings
    from celery_argsize.handoff import Handoff
    from celery_argsize.stores.base import Store

__all__ = ["Flusher"]


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
    #: Tasks in one batch: keeps one Lua call short.
    BATCH_TASKS: Final = 100
    #: Longest wait between two attempts, in seconds; the first is the flush interval, each next one twice as long.
    MAX_BACKOFF: Final = 30.0

    def __init__(self, handoff: Handoff, store: Store, settings: Settings, writer: str) -> None:
        self._handoff = handoff
        self._store = store
        self._interval = settings.flush_interval
        self._writer = writer
        self._pending = Book(settings.max_task_names)
        self._own = Book(settings.max_task_names)
        self._app_name = settings.app_name
        #: What the keys of its figures begin with: tells the workers of one app from those of another.
        self.base = settings.base
        self._batch: Batch | None = None
        self._sequence = 0
        self._failures = 0
        self._next_flush = 0.0
        self._held_until = 0.0
        self._since = time.time()
        self._requests: deque[_Request] = deque()
        self._attention = threading.Event()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="celery-argsize", daemon=True)
        self._trouble = Trouble("figures are not being written, they are kept and tried again")

    # -- for other threads -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

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
        if not self._thread.is_alive():  # else it may still read from it
            self._handoff.close()
        return self._pending.count + (Book.count_of(self._batch.tasks) if self._batch else 0)

    def own_figures(self) -> Figures:
        """What this worker measured. Once the thread has ended, or for a rough look."""
        tasks = Book(len(self._own.tasks) + len(self._pending.tasks))
        tasks.merge([*self._own.tasks.items(), *self._pending.tasks.items()])
        return Figures(self._app_name, tasks.tasks, self._since, time.time())

    def _ask(self, request: _Request, timeout: float) -> bool:
        if not self._thread.is_alive():
            return False
        self._requests.append(request)
        self._call()
        return request.done.wait(timeout) and request.written

    def _call(self) -> None:
        self._attention.set()
        self._handoff.wake()

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._deadline is None:
            try:
                self._turn()
            except Exception as exc:  # noqa: BLE001 - the thread must live: what it holds is not lost
                self._trouble.report(exc)
                self._attention.wait(self._interval)
        self._finish(self._deadline)

    def _turn(self) -> None:
        idle = not self._pending and self._batch is None and not self._requests
        self._handoff.wait(None if idle else 0.0)
        self._attention.wait(self.GATHER if idle else min(self._interval, 10 * self.GATHER))
        self._attention.clear()
        self._handoff.drain(self._pending)
        if time.monotonic() >= self._next_flush:
            self._deliver()
        while self._requests:
            self._answer(self._requests.popleft())

    def _answer(self, request: _Request) -> None:
        if request.release:
            self._held_until = 0.0
            if request.forget:
                self._forget(request.task)
            request.written = True
        else:
            self._held_until = 0.0
            request.written = self._deliver()
            self._held_until = time.monotonic() + request.hold if request.hold else 0.0
        request.done.set()

    def _forget(self, task: str | None) -> None:
        self._own.clear(task)
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
            try:
                self._store.apply(batch)
            except StoreError as exc:
                self._failures += 1
                backoff = min(self.MAX_BACKOFF, max(1.0, self._interval) * 2 ** min(self._failures - 1, 10))
                self._next_flush = now + backoff * random.uniform(0.75, 1.25)  # noqa: S311 - spreads a fleet's retries
                self._trouble.report(exc)
                return False
            self._batch = None
            if self._failures:
                self._failures = 0
                self._trouble.over("figures are being written again, nothing was lost")
        return True

    def _seal(self) -> Batch | None:
        """The batch to write next: the one that has had no answer yet, else a new one; ``None`` when all is written."""
        if self._batch is None and self._pending:
            tasks = self._pending.take(self.BATCH_TASKS)
            self._own.merge(tasks.items())
            self._sequence += 1
            self._batch = Batch(self._writer, self._sequence, tasks, self._pending.origins.take())
        return self._batch

    def _finish(self, deadline: float) -> None:
        """Write what is left, until *deadline* (monotonic); a hold that outlasts it counts less than the figures."""
        self._held_until = min(self._held_until, deadline - 1.0)
        while True:
            try:
                self._handoff.drain(self._pending)
                if self._deliver():
                    break
            except Exception as exc:  # noqa: BLE001 - as in _run
                self._trouble.report(exc)
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._attention.clear()
            self._attention.wait(min(left, 1.0))
        while self._requests:
            self._requests.popleft().done.set()
        self._store.close()
