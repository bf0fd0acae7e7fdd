"""From the process that runs a task to the worker's main process: never waiting, never losing what was handed over.

``PipeHandoff`` is for pools with child processes, ``LocalHandoff`` for those without. Both sides of each are here;
what the main process does with what arrives is in ``flusher``.

The pipe: one for all children, non-blocking. A message of up to PIPE_BUF bytes is written whole or not at all, so
children need no lock, and what is in the pipe outlives the child that wrote it. When it is full (the main process is
stopped), a child adds up what it cannot hand over, and hands the sums over later, with its next task or when it ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from celery_argsize.failure_log import FailureLog
from celery_argsize.figures.counters import OTHER, Tally, TaskStats
from celery_argsize.worker.messages import chunks, pack, plain, split, unpack

if TYPE_CHECKING:
    from typing import TypeAlias

    from celery_argsize.figures.counters import Rules
    from celery_argsize.measuring.measurement import Plain

if TYPE_CHECKING:
    #: Counters of a task on their way.
    _Sums: TypeAlias = tuple[str, TaskStats]


class Handoff(Protocol):
    """Both sides of the way from a task to the main process."""

    @property
    def path(self) -> str | None:
        """Where spawned children find it, if they can."""

    def put(self, measurement: Plain) -> None:
        """Hand over one measurement: a ``Measurement``, or plain tuples of the same, which is faster.

        Called where the task runs: never blocks, never raises for want of room.
        """

    def add(self, task: str, stats: TaskStats) -> None:
        """Hand over counters of *task*. As ``put``."""

    def linger(self, timeout: float) -> int:
        """Hand over what is still kept back, until there is no room for *timeout* seconds; how many runs are left.

        Called where no task waits.
        """

    def drain(self, into: Tally) -> None:
        """Move everything that was handed over *into* a tally. Main process, flusher's thread only."""

    def wait(self, timeout: float | None) -> None:
        """Return when there may be something to drain, after ``wake``, or after *timeout* seconds."""

    def wake(self) -> None:
        """Make ``wait`` return now. From any thread."""

    def close(self) -> None:
        """Give back what it holds."""

    def hide(self) -> None:
        """Remove the path: who has it open keeps it."""

    def after_fork(self) -> bool:
        """In a child: leave what is the parent's alone; whether what the child hands over arrives there."""


_failures: Final = FailureLog("what a task handed over could not be taken in, and is counted as an error")


def _count_error(error: Exception, tally: Tally) -> None:
    """Where one measurement could not be taken in: it is counted in *tally*, and keeps none of the others back."""
    _failures.report(error)
    counts = tally.tasks.setdefault(OTHER, TaskStats()).counts
    counts["errors"] = counts.get("errors", 0) + 1


class LocalHandoff:
    """Within one process. ``deque.append`` is atomic: no lock is taken where a task runs."""

    #: Measurements held one by one; from there on, tasks fold them into sums, so that memory stays bounded.
    HIGH_WATER: Final = 10_000
    #: Seconds between looks: a put wakes nobody.
    TICK: Final = 1.0

    path: Final = None

    def __init__(self, rules: Rules, max_names: int) -> None:
        self._rules = rules
        self._queue: deque[Plain | _Sums] = deque()
        self._folded = Tally(max_names)
        self._folding = threading.Lock()
        self._woken = threading.Event()

    def put(self, measurement: Plain) -> None:
        self._append(measurement)

    def add(self, task: str, stats: TaskStats) -> None:
        self._append((task, stats))

    def _append(self, content: Plain | _Sums) -> None:
        self._queue.append(content)
        # A lock that another thread holds is not waited for: that thread is folding already.
        if len(self._queue) > self.HIGH_WATER and self._folding.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._folding.release()

    def _fold(self) -> None:
        with contextlib.suppress(IndexError):
            for _ in range(len(self._queue)):
                content = self._queue.popleft()
                try:
                    if len(content) == 2:  # noqa: PLR2004 - sums
                        self._folded.merge([content])
                    else:
                        self._folded.add(content, self._rules)
                except Exception as exc:  # noqa: BLE001 - a fault of ours, whatever it is
                    _count_error(exc, self._folded)

    def linger(self, timeout: float) -> int:  # noqa: ARG002 - nothing is kept back
        return 0

    def drain(self, into: Tally) -> None:
        with self._folding:
            self._fold()
            into.origins.merge(self._folded.origins.take())
            into.merge(self._folded.take(len(self._folded.tasks)).items())

    def wait(self, timeout: float | None) -> None:
        self._woken.wait(self.TICK if timeout is None else timeout)
        self._woken.clear()

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        """Nothing to give back."""

    def hide(self) -> None:
        """Nobody else finds it."""

    def after_fork(self) -> bool:
        return False


class PipeWriter:
    """The child's end."""

    def __init__(self, fd: int, rules: Rules, max_names: int) -> None:
        self._fd = fd
        self._rules = rules
        self._kept = Tally(max_names)

    def put(self, measurement: Plain) -> None:
        if type(measurement) is not tuple:
            measurement = plain(measurement)
        if (self._kept.tasks and not self._offer()) or not self._write(measurement):
            self._kept.add(measurement, self._rules)

    def add(self, task: str, stats: TaskStats) -> None:
        self._kept.merge([(task, stats)])
        self._offer()

    def after_fork(self) -> bool:
        self._kept.clear()  # what the parent kept is the parent's to hand over
        return True

    def linger(self, timeout: float) -> int:
        while self._kept and not self._offer():
            if not select.select([], [self._fd], [], timeout)[1]:
                break
        return self._kept.count

    def _write(self, content: tuple[Any, ...]) -> bool:
        """Whether a message with *content* went into the pipe; it does so whole or not at all."""
        message = pack(content)
        if len(message) > select.PIPE_BUF:  # the longest, on some systems: what they add up to is handed over in parts
            return False
        try:
            os.write(self._fd, message)
        except OSError:  # full, or the main process is gone
            return False
        return True

    def _offer(self) -> bool:
        """Hand over what was kept, as far as the pipe has room; whether nothing is left."""
        for content, emptied in chunks(self._kept):
            if not self._write(content):
                return False
            for field, holder in emptied.items():
                del holder[field]
        self._kept.clear()
        return True


def _enlarge(fd: int, capacity: int) -> None:
    import fcntl  # noqa: PLC0415 - Windows has none, and no pool with children either

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # over the user's quota: a smaller one will do
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, capacity)


class PipeHandoff(PipeWriter):
    """Both ends, made by the main process before it starts children.

    Forked children inherit the writing end; for spawned ones the pipe has a *path*, which ``PipeWriter`` opens there.
    """

    #: Bytes the pipe holds (Linux): about 4,000 measurements. Elsewhere it is the system's default.
    CAPACITY: Final = 1 << 20
    #: Reads of up to 64 KB in one drain: children that write all the time do not keep it from ending.
    READS: Final = 64

    def __init__(self, rules: Rules, max_names: int, *, named: bool = False) -> None:
        self._folder = tempfile.mkdtemp(prefix="celery-argsize-") if named else None
        self.path = os.path.join(self._folder, "handoff") if self._folder else None  # noqa: PTH118 - os.open takes it
        self._read_fd, write_fd = self._open()
        super().__init__(write_fd, rules, max_names)
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._read_fd, write_fd, self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        _enlarge(write_fd, self.CAPACITY)
        self._rest = b""
        self._poll = select.poll()
        self._poll.register(self._read_fd, select.POLLIN)
        self._poll.register(self._wake_read, select.POLLIN)

    def _open(self) -> tuple[int, int]:
        if self.path is None:
            return os.pipe()
        os.mkfifo(self.path, 0o600)
        read_fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        return read_fd, os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)

    def drain(self, into: Tally) -> None:
        for _ in range(self.READS):
            data = self._read(self._read_fd)
            if not data:
                break
            self._rest = self._take(self._rest + data, into)

    def _take(self, data: bytes, into: Tally) -> bytes:
        """Unpack the whole messages in *data*; returns what is left of an unfinished one."""
        messages, rest = split(data)
        for message in messages:
            try:
                unpack(message, into, self._rules)
            except Exception as exc:  # noqa: BLE001 - as above
                _count_error(exc, into)
        return rest

    @staticmethod
    def _read(fd: int) -> bytes:
        try:
            return os.read(fd, 1 << 16)
        except BlockingIOError:
            return b""

    def wait(self, timeout: float | None) -> None:
        self._poll.poll(None if timeout is None else timeout * 1000)
        while self._read(self._wake_read):
            pass

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full of wakes: it will wake
            os.write(self._wake_write, b"!")

    def close(self) -> None:
        for fd in (self._read_fd, self._fd, self._wake_read, self._wake_write):
            with contextlib.suppress(OSError):
                os.close(fd)
        self.hide()

    def hide(self) -> None:
        if self._folder is not None and Path(self._folder).is_dir():
            shutil.rmtree(self._folder, ignore_errors=True)
