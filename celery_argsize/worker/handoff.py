"""Passes measurements from tasks to the flusher in the main process. No task waits for it.

``PipeHandoff`` is for pools with child processes,
``LocalHandoff`` for pools without.

All children write to one non-blocking pipe. A message of up to PIPE_BUF bytes is
written whole or not at all, so they need no lock. It stays in the pipe when its
child dies. While the pipe is full, a child adds its measurements up. It sends the
sums at a later task or when it ends.
"""

from __future__ import annotations

import marshal
import os
import select
import shutil
import struct
import tempfile
import threading
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.failure_log import FailureLog
from celery_argsize.figures.counters import OTHER, Exemplar, Extreme, Rules, Tally, TaskStats
from celery_argsize.figures.origins import Sighting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.measuring.measurement import Plain

_failures: Final = FailureLog("what a task handed over could not be taken in, and is counted as an error")


def _count_error(error: Exception, tally: Tally) -> None:
    """Count in *tally* a message that could not be added."""
    _failures.report(error)
    tally.tasks.setdefault(OTHER, TaskStats()).counts["errors"] += 1


class LocalHandoff:
    """A queue within one process. ``deque.append`` is atomic, so a task takes no lock."""

    #: Queue length above which a task adds the entries up, to bound memory.
    HIGH_WATER: Final = 10_000
    #: Seconds between two drains, as ``put`` wakes nobody.
    TICK: Final = 1.0

    path: Final = None  # no pipe

    def __init__(self, rules: Rules, max_names: int) -> None:
        self._rules = rules
        self._queue: deque[Plain | tuple[str, TaskStats]] = deque()
        self._sums = Tally(max_names)
        self._sums_lock = threading.Lock()
        self._woken = threading.Event()

    def put(self, measurement: Plain) -> None:
        """Hand over one measurement."""
        self._append(measurement)

    def add(self, task: str, stats: TaskStats) -> None:
        """Hand over counters of *task*."""
        self._append((task, stats))

    def _append(self, entry: Plain | tuple[str, TaskStats]) -> None:
        self._queue.append(entry)
        # Whoever holds the lock is adding them up.
        if len(self._queue) > self.HIGH_WATER and self._sums_lock.acquire(blocking=False):
            try:
                self._add_up()
            finally:
                self._sums_lock.release()

    def _add_up(self) -> None:
        with suppress(IndexError):
            for _ in range(len(self._queue)):
                entry = self._queue.popleft()
                try:
                    if len(entry) == 2:  # noqa: PLR2004 - (task, stats)
                        self._sums.merge([entry])
                    else:
                        self._sums.add(entry, self._rules)
                except Exception as exc:  # noqa: BLE001 - the others still count
                    _count_error(exc, self._sums)

    def linger(self, timeout: float) -> int:  # noqa: ARG002
        """At the end of a child: send its sums. The runs that found no room in *timeout* seconds."""
        return 0

    def drain(self, into: Tally) -> None:
        """In the main process: move all that was handed over into the tally *into*."""
        with self._sums_lock:
            self._add_up()
            into.origins.merge(self._sums.origins.take())
            into.merge(self._sums.take(len(self._sums.tasks)).items())

    def wait(self) -> None:
        """Wait until there may be something to drain, or for ``wake``."""
        self._woken.wait(self.TICK)
        self._woken.clear()

    def wake(self) -> None:
        """Make ``wait`` return now."""
        self._woken.set()

    def close(self, *, in_use: bool = False) -> None:
        """Remove the named pipe. Close the descriptors, unless they are *in_use*."""

    def after_fork(self) -> bool:
        """In a forked child: whether the main process gets what the child hands over."""
        return False


class PipeWriter:
    """The end of the pipe that tasks write to."""

    def __init__(self, fd: int, rules: Rules, max_names: int) -> None:
        self._fd = fd
        self._rules = rules
        self._kept = Tally(max_names)  # sums that found no room

    def put(self, measurement: Plain) -> None:
        if type(measurement) is not tuple:
            measurement = _plain(measurement)  # marshal takes no named tuples
        if (self._kept.tasks and not self._send_sums()) or not self._write(measurement):
            self._kept.add(measurement, self._rules)

    def add(self, task: str, stats: TaskStats) -> None:
        self._kept.merge([(task, stats)])
        self._send_sums()

    def after_fork(self) -> bool:
        self._kept.clear()  # the parent hands these over
        return True

    def linger(self, timeout: float) -> int:
        while self._kept and not self._send_sums():
            if not select.select([], [self._fd], [], timeout)[1]:
                break
        return self._kept.count

    def _write(self, content: tuple[Any, ...]) -> bool:
        """Write *content* as one message. ``False``: no room."""
        message = _pack(content)
        if len(message) > select.PIPE_BUF:  # goes in parts, with the sums
            return False
        try:
            os.write(self._fd, message)
        except OSError:  # full, or the main process is gone
            return False
        return True

    def _send_sums(self) -> bool:
        """Write the sums, as far as there is room. Whether all were written."""
        for content, sent in _chunks(self._kept):
            if not self._write(content):
                return False
            for field, figures in sent.items():
                del figures[field]
        self._kept.clear()
        return True


class PipeHandoff(PipeWriter):
    """Both ends of the pipe. Forked children inherit them; spawned ones open the ``path`` of a *named* pipe."""

    #: Bytes that the pipe holds on Linux: about 4,000 measurements.
    CAPACITY: Final = 1 << 20
    #: Most reads, of up to 64 KiB each, in one drain. This bounds its time.
    READS: Final = 64

    def __init__(self, rules: Rules, max_names: int, *, named: bool = False) -> None:
        self._folder = self.path = None
        if named:
            self._folder = tempfile.mkdtemp(prefix="celery-argsize-")
            self.path = f"{self._folder}/handoff"
            os.mkfifo(self.path, 0o600)
            self._read_fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
            write_fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        else:
            self._read_fd, write_fd = os.pipe()
        super().__init__(write_fd, rules, max_names)
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._read_fd, write_fd, self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        with suppress(AttributeError, OSError):  # not Linux, or over the user's quota
            import fcntl  # noqa: PLC0415 - Windows has none

            fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, self.CAPACITY)
        self._unfinished = b""  # of a message that the next read completes
        self._poll = select.poll()
        self._poll.register(self._read_fd, select.POLLIN)
        self._poll.register(self._wake_read, select.POLLIN)

    def drain(self, into: Tally) -> None:
        for _ in range(self.READS):
            data = self._read(self._read_fd)
            if not data:
                break
            messages, self._unfinished = _split(self._unfinished + data)
            for message in messages:
                try:
                    unpack(message, into, self._rules)
                except Exception as exc:  # noqa: BLE001 - the others still count
                    _count_error(exc, into)

    @staticmethod
    def _read(fd: int) -> bytes:
        try:
            return os.read(fd, 1 << 16)
        except BlockingIOError:
            return b""

    def wait(self) -> None:
        self._poll.poll()
        while self._read(self._wake_read):
            pass

    def wake(self) -> None:
        with suppress(BlockingIOError):  # full: ``wait`` returns anyway
            os.write(self._wake_write, b"!")

    def close(self, *, in_use: bool = False) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        for fd in () if in_use else (self._read_fd, self._fd, self._wake_read, self._wake_write):
            with suppress(OSError):
                os.close(fd)


Handoff = LocalHandoff | PipeHandoff

# -- messages: a length, then a marshaled tuple, as both ends run the same Python

_LENGTH: Final = struct.Struct("<H")
#: From version 3 on, marshal looks for repeated objects, which takes time.
_MARSHAL_VERSION: Final = 2
#: Most fields in one message of sums, which keeps it
#: under PIPE_BUF on any system.
_FIELDS_A_MESSAGE: Final = 2


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def _pack(content: tuple[Any, ...]) -> bytes:
    data = marshal.dumps(content, _MARSHAL_VERSION)
    return _LENGTH.pack(len(data)) + data


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole messages in *data*, without their lengths, and the bytes after them."""
    messages, at = [], 0
    while at + _LENGTH.size <= len(data):
        begin = at + _LENGTH.size
        end = begin + _LENGTH.unpack_from(data, at)[0]
        if end > len(data):
            break
        messages.append(data[begin:end])
        at = end
    return messages, data[at:]


def unpack(message: bytes, into: Tally, rules: Rules) -> None:
    """Add *message*, a measurement or a chunk of sums, to the tally *into*."""
    content = marshal.loads(message)  # noqa: S302 - from our own child
    if len(content) == 2:  # noqa: PLR2004 - (host, sightings)
        host, sightings = content
        into.origins.merge({host: {field: Sighting(*sighting) for field, sighting in sightings.items()}})
    elif len(content) == 4:  # noqa: PLR2004 - (task, counts, maxima, exemplars)
        task, counts, maxima, exemplars = content
        largest = {field: Extreme(*extreme) for field, extreme in maxima.items()}
        shown = {field: Exemplar(*exemplar) for field, exemplar in exemplars.items()}
        into.merge([(task, TaskStats(counts, largest, shown))])
    else:
        into.add(content, rules)


def _chunks(tally: Tally) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The sums as messages: ``(content, sent)``. *sent*: the fields in it, each with the dict it is from."""
    for host, sightings in [*tally.origins.hosts.items()]:
        for field, sighting in [*sightings.items()]:
            yield (host, {field: (*sighting,)}), {field: sightings}
    for task, stats in [*tally.tasks.items()]:
        kinds: tuple[dict[str, Any], ...] = (stats.counts, stats.maxima, stats.exemplars)
        for place, figures in enumerate(kinds, start=1):
            items = iter([*figures.items()])
            while chunk := [*islice(items, _FIELDS_A_MESSAGE)]:
                content: list[Any] = [task, {}, {}, {}]
                content[place] = {field: value if place == 1 else (*value,) for field, value in chunk}
                yield (*content,), {field: figures for field, _ in chunk}
