"""The regions of a worker's processes: who counts in which, and what the main process has read from them.

A region outlives its process: the next child goes on counting in it. The main
process writes nothing but the epoch and the number of resets.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from typing import TYPE_CHECKING, Final

from celery_argsize.figures import layout as words_of
from celery_argsize.figures.counters import Extreme, TaskStats
from celery_argsize.figures.layout import BANK, Changes
from celery_argsize.worker.region import EPOCH, NAMES, OWNER, PENDING, REDO, RESETS, UPDATES, WORD, Region

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.figures.counters import Rules

try:
    import fcntl
except ImportError:  # Windows, whose pools have no children that share memory
    fcntl = None  # type: ignore[assignment]


class Reader:
    """What the main process has read from one region."""

    def __init__(self, region: Region, rules: Rules) -> None:
        self._region = region
        self._layout = rules.layout
        self._unpack = struct.Struct(f"={len(rules.layout.names)}q").unpack
        self._nothing = bytes(len(rules.layout.names) * WORD)
        #: The words of each slot as they were read last; and what UPDATES and PENDING were when all of them were.
        self._read: list[bytes] = []
        self._read_at = (0, 0)
        #: What they were a moment before, if an update was being made.
        self._stopped_at = (0, 0)

    def differences(self) -> Iterator[tuple[str, TaskStats]]:
        """What was counted since the last call, by task name.

        What was given counts as read once the next is asked for.
        """
        words, complete = self._region.words, True
        begun = words[UPDATES], words[PENDING]
        if begun == self._read_at:
            return
        for slot in range(words[NAMES]):
            if slot == len(self._read):
                self._read.append(self._nothing)
            before, data = self._read[slot], self._copy(slot)
            if data is None:
                complete = False
            elif data != before:
                yield self._region.name(slot), self._difference(before, data)
                self._read[slot] = data
        if complete:
            self._read_at = begun

    def _copy(self, slot: int) -> bytes | None:
        """The words of *slot*, as of one moment; ``None`` if updates come too fast for that."""
        words, begin = self._region.words, self._region.base(slot)
        end = begin + len(self._nothing) // WORD
        for _ in range(10):
            before = words[UPDATES], words[PENDING]
            if before[1] and before != self._stopped_at:
                time.sleep(0.001)  # it is being made; or its process was stopped or killed, and it stays so
                self._stopped_at = before
                continue
            data = bytes(words[begin:end])
            redo = words[REDO : REDO + 2 * before[1]].tolist()
            if (words[UPDATES], words[PENDING]) != before:
                continue
            if before[1]:
                changed = dict(zip(redo[::2], redo[1::2], strict=True))
                copy = [changed.get(begin + at, value) for at, value in enumerate(self._unpack(data))]
                data = struct.pack(f"={len(copy)}q", *copy)
            return data
        return None

    def _difference(self, before: bytes, after: bytes) -> TaskStats:
        old, new = self._unpack(before), self._unpack(after)
        changed = {word for word, (earlier, value) in enumerate(zip(old, new, strict=True)) if value != earlier}
        maxima: dict[int, int] = {}
        for bank, words in enumerate(self._layout.maxima):
            at = words_of.EPOCHS + bank
            # In another epoch, all are new. In the same one, those that were raised.
            for word in words if at in changed else words & changed:
                first = word - bank * BANK
                if new[word] > maxima.get(first, 0):
                    maxima[first] = new[word]
            changed -= words | {at}
        counts, largest = self._layout.named(Changes({word: new[word] - old[word] for word in changed}, maxima))
        return TaskStats(counts, {name: Extreme(value, "", 0.0) for name, value in largest.items()})


class SharedCounters:
    """The regions of a worker. Made in its main process, and inherited by forked children."""

    #: Regions beyond the most children that a pool is set up for: a child may begin
    #: before another has ended, and remote control may add some.
    SPARE: Final = 32

    def __init__(self, rules: Rules, names: int, children: int = 0, *, path: str | None = None) -> None:
        """*children*: most processes in the pool; 0: tasks run in this one. *path*: a file, for spawned children."""
        size = Region.bytes_for(rules, names)
        regions = children + self.SPARE if children else 1
        self._file = _File(path, regions, size) if children else None
        fd = self._file.fd if self._file is not None and path is not None else -1
        try:
            view = memoryview(mmap.mmap(fd, regions * size))
        except (OSError, OverflowError, ValueError):
            self.close()
            raise
        self._regions = [Region(view[size * n : size * (n + 1)], rules, names) for n in range(regions)]
        self._readers = [Reader(region, rules) for region in self._regions]
        #: The region of this process, once it has one.
        self.own: Region | None = None if children else self._claim()

    def region(self) -> Region | None:
        """The region of this process; ``None`` if all are taken."""
        self.check()
        if self.own is None:
            self.own = self._claim()
        return self.own

    def check(self) -> None:
        """Leave the region, if another process has claimed it: it may if a task closes the file that is locked."""
        if self.own is not None and not self.own.is_mine():
            self.own = None

    def _claim(self) -> Region | None:
        for number, region in enumerate(self._regions):
            # The lock tells which regions are in use. It ends with its process, however that ends.
            if self._file is None or self._file.take(number):
                return region.claim()
        return None

    def after_fork(self) -> None:
        """In a child: count in a region of its own, from its first run on."""
        self.own = None

    def differences(self) -> Iterator[tuple[str, TaskStats]]:
        """In the main process: what all processes have counted since the last call, by task name."""
        for region, reader in zip(self._regions, self._readers, strict=True):
            if region.words[OWNER]:
                yield from reader.differences()

    def begin_epoch(self) -> None:
        """In the main process: let maxima be those of later runs. Those of this epoch stay until the next one ends."""
        for region in self._regions:
            if region.words[OWNER]:
                region.words[EPOCH] += 1

    def note_reset(self) -> None:
        """In the main process: let tasks tell of their largest runs anew, as the figures are about to be reset."""
        for region in self._regions:
            if region.words[OWNER]:
                region.words[RESETS] += 1

    def close(self) -> None:
        """Close the file. The memory lives as long as someone counts in it."""
        if self._file is not None:
            os.close(self._file.fd)


class _File:
    """Tells which regions are in use by locks on its bytes. For spawned children it is the memory too."""

    def __init__(self, path: str | None, regions: int, size: int) -> None:
        self._size = size if path is not None else 0
        self.fd = self._open(path)
        self._inode = os.fstat(self.fd).st_ino
        try:
            os.truncate(self.fd, regions * self._size)
            for number in range(regions):
                self._allocate(number, mmap.PAGESIZE)  # what the main process reads of each
        except (OSError, OverflowError):
            os.close(self.fd)
            raise

    @staticmethod
    def _open(path: str | None) -> int:
        if path is not None:
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if hasattr(os, "memfd_create"):
            return os.memfd_create("celery-argsize")
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())

    def take(self, number: int) -> bool:
        """Lock region *number*, if no other process has. The lock ends with its process, however that ends."""
        try:
            if os.fstat(self.fd).st_ino != self._inode:  # the task has closed it, and another file has its number
                return False
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError:
            return False
        try:
            self._allocate(number, self._size)
        except OSError:
            fcntl.lockf(self.fd, fcntl.LOCK_UN, 1, number)
            return False
        return True

    def _allocate(self, number: int, size: int) -> None:
        """Set room aside. A page without room would kill the process that writes to it."""
        if self._size and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self.fd, number * self._size, size)
