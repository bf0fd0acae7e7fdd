"""Notes from tasks to the main process about what is rare: the id of a largest run, an exemplar, a sending host.

``PipeNotes`` is for pools with child processes, ``LocalNotes`` for pools without. No
task waits: a note that finds no room is lost. Only a process without room in shared
memory sends counts as notes.
"""

from __future__ import annotations

import json
import os
import select
import threading
from collections import deque
from contextlib import suppress
from typing import Any, Final

#: A note: what to merge into the figures, by the name of its kind.
Note = dict[str, Any]

_encode: Final = json.JSONEncoder(separators=(",", ":")).encode

#: Most notes that wait in a process without children.
_MOST: Final = 1000


class LocalNotes:
    """Notes within one process. ``deque.append`` is atomic, so a task takes no lock."""

    def __init__(self) -> None:
        self._notes: deque[Note] = deque(maxlen=_MOST)
        self._woken = threading.Event()

    def send(self, note: Note) -> None:
        """Send *note*, and make ``wait`` return."""
        self._notes.append(note)
        self._woken.set()

    def wake(self) -> None:
        """Make ``wait`` return."""
        self._woken.set()

    def wait(self, timeout: float) -> None:
        """Wait for a note or ``wake``, for at most *timeout* seconds."""
        self._woken.wait(timeout)
        self._woken.clear()

    def read(self) -> list[Note]:
        """Take all notes."""
        return [self._notes.popleft() for _ in range(len(self._notes))]

    def close(self) -> None:
        """Close the pipe, if there is one."""


class NoteWriter:
    """The end of a pipe that children write to. A write of up to PIPE_BUF bytes is whole or not at all."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, note: Note) -> None:
        line = _encode(note).encode() + b"\n"
        if len(line) <= select.PIPE_BUF:
            with suppress(OSError):  # full, or the main process is gone
                os.write(self._fd, line)


class PipeNotes(NoteWriter):
    """Both ends of a pipe. Forked children inherit it; spawned ones open its *path*."""

    def __init__(self, path: str | None = None) -> None:
        if path is None:
            self._read_fd, write_fd = os.pipe()
        else:
            os.mkfifo(path, 0o600)
            self._read_fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            write_fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        super().__init__(write_fd)
        for fd in (self._read_fd, write_fd):
            os.set_blocking(fd, False)
        self._poll = select.poll()
        self._poll.register(self._read_fd, select.POLLIN)
        self._unfinished = b""

    def wake(self) -> None:
        self.send({})

    def wait(self, timeout: float) -> None:
        self._poll.poll(timeout * 1000)

    def read(self) -> list[Note]:
        try:
            data = os.read(self._read_fd, 1 << 16)
        except BlockingIOError:
            return []
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        notes = []
        for line in lines:
            with suppress(ValueError, RecursionError):  # damaged
                notes.append(json.loads(line))
        return notes

    def close(self) -> None:
        for fd in (self._read_fd, self._fd):
            with suppress(OSError):
                os.close(fd)


Notes = LocalNotes | PipeNotes
