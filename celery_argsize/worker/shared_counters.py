"""Counters in memory that a worker's main process shares with its pool children. docs/shared-memory.md has the layout.

Each process counts in a region of its own, so it needs no lock. The main process
reads what has changed, and writes nothing but the epoch. A region outlives its
process: the next child goes on counting in it.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import threading
import time
from bisect import bisect_left
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.figures import layout as words_of
from celery_argsize.figures.counters import OTHER, Extreme, TaskStats
from celery_argsize.figures.layout import BANK
from celery_argsize.measuring.cuts import DEFAULT_LEVELS, DEFAULT_LIMIT
from celery_argsize.measuring.foreign import sizes_of_leaves
from celery_argsize.measuring.measurement import NAME_BYTES, clean, measure_whole
from celery_argsize.measuring.walk import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from celery_argsize.figures.counters import Rules
    from celery_argsize.figures.layout import PartWords

try:
    import fcntl
except ImportError:  # Windows, whose pools have no children that share memory
    fcntl = None  # type: ignore[assignment]

#: The first words of a region: updates made; changes of the one being made; epoch of the
#: maxima, which the main process sets; task names in use; whether a process has claimed it.
UPDATES, PENDING, EPOCH, NAMES, OWNER, REDO = range(6)
#: Changes in the redo record, of two words each: a word, and its new value.
MAX_CHANGES: Final = 96
_MARKS: Final = REDO + 2 * MAX_CHANGES
#: Words of a task name: its length in bytes, then the bytes.
_NAME_WORDS: Final = 1 + NAME_BYTES // 8
_WORD: Final = 8


#: What there is to tell of the args of a run; see add_part in measuring/_compiled.c.
NEW_MAXIMUM, LARGE_PART, AT_ONCE, SHOWS_LIMIT = 1, 2, 4, 8
UNSETTLED: Final = -1
#: ``measure_whole`` of no kwargs.
_NOTHING: Final = (0, 0, 2, 1)


@cache
def _words(number: int) -> struct.Struct:
    return struct.Struct(f"={number}q")


class Region:
    """The counters of one process, by task name."""

    def __init__(self, memory: memoryview, rules: Rules, names: int) -> None:
        self.words = memory.cast("q")
        self._layout = rules.layout
        self._plan = rules.layout.plan
        self._size = len(rules.layout.names)
        self._most = names + 1  # and OTHER
        self._pid = 0
        #: Whether the pure twin has begun to make an update: asking the words takes longer.
        self._is_unfinished = False
        #: Updates that were made, as in the words.
        self._made = 0
        self._slots: dict[str, int] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._updates: deque[tuple[int, int, Mapping[int, int], Mapping[int, int]]] = deque()
        self._busy = threading.Lock()
        #: Held while a name is added. Other threads wait for that, but not for ever.
        self._naming = threading.Lock()

    def is_mine(self) -> bool:
        """Whether no other process has claimed it."""
        return bool(self.words[OWNER] == self._pid)

    @staticmethod
    def bytes_for(rules: Rules, names: int) -> int:
        """The size of a region for as many *names*, in whole pages."""
        words = _MARKS + (names + 1) * (1 + _NAME_WORDS + len(rules.layout.names))
        return -(-words * _WORD // mmap.PAGESIZE) * mmap.PAGESIZE

    def claim(self) -> Region:
        """Begin to count in it, or go on where an earlier process has ended."""
        self._made = self.words[UPDATES]
        self._finish_update()
        self._pid = self.words[OWNER] = os.getpid()
        self._slots = {self.name(slot): slot for slot in range(self.words[NAMES])}
        self._places = {OTHER: (self.base(0), _MARKS)}
        if not self._slots:
            self._add_name(OTHER)
        return self

    # -- places

    def base(self, slot: int) -> int:
        """The first word of the counters in *slot*."""
        return _MARKS + self._most * (1 + _NAME_WORDS) + slot * self._size

    def name(self, slot: int) -> str:
        """The task whose counters are in *slot*."""
        at = _MARKS + self._most + slot * _NAME_WORDS
        return bytes(self.words[at + 1 : at + _NAME_WORDS])[: self.words[at]].decode()

    def place(self, name: Any) -> tuple[int, int]:
        """The first word of the counters of *name*, and its mark: those of ``OTHER`` if there is no more room."""
        place = self._places.get(name)
        if place is None:
            slot = self._add_name(clean(name, NAME_BYTES))
            place = self.base(slot), _MARKS + slot
            if len(self._places) <= self._most and len(name) <= NAME_BYTES:
                self._places[name] = place
        return place

    def _add_name(self, name: str) -> int:
        if name in self._slots or not self._naming.acquire(timeout=0.1):
            return self._slots.get(name, 0)
        try:
            slot = self._slots.get(name, self.words[NAMES])
            if slot == self._most:
                return 0  # OTHER came first
            at, data = _MARKS + self._most + slot * _NAME_WORDS, name.encode()
            self.words[at + 1 : at + _NAME_WORDS] = memoryview(data.ljust(NAME_BYTES, b"\0")).cast("q")
            self.words[at] = len(data)
            self.words[NAMES] = max(slot + 1, self.words[NAMES])  # only now it is seen
            self._slots[name] = slot
            return slot
        finally:
            self._naming.release()

    def largest(self, name: str) -> tuple[int, ...]:
        """The largest characters of args and of kwargs in this epoch."""
        base, _ = self.place(name)
        epoch = self.words[EPOCH]
        if self.words[base + words_of.EPOCHS + (epoch & 1)] != epoch:
            return (0, 0)
        return tuple(self.words[base + word + (epoch & 1) * BANK] for word in self._layout.largest)

    # -- counting

    def count(self, name: str, args: Any, argsrepr: Any, kwargs: Any, kwargsrepr: Any) -> int:
        """Measure and count a run, if what came with it settles how.

        Returns what there is to tell about it (``NEW_MAXIMUM`` …), of kwargs 4 bits higher; or ``UNSETTLED``, having
        counted nothing.
        """
        if compiled is None:
            if type(kwargs) is dict and not kwargs and type(kwargsrepr) is str and kwargsrepr == "{}":
                return self._count_in_python(name, measure_whole(args, argsrepr), _NOTHING)  # most runs
            return self._count_in_python(name, measure_whole(args, argsrepr), measure_whole(kwargs, kwargsrepr))
        base, mark = self._places.get(name) or self.place(name)
        aside: list[Any] = []
        tell: int = compiled.count(self.words, base, mark, self._plan, args, argsrepr, kwargs, kwargsrepr, aside, ())
        if aside and (leaves := sizes_of_leaves(args, kwargs)):
            tell = compiled.count(self.words, base, mark, self._plan, args, argsrepr, kwargs, kwargsrepr, [], leaves)
        return tell

    def _count_in_python(self, name: str, *parts: tuple[int, int, int, int] | None) -> int:
        """The pure twin of ``compiled.count``, for parts that were measured."""
        if None in parts or not self._busy.acquire(False):  # noqa: FBT003 - a keyword takes time
            return UNSETTLED
        try:
            base, mark = self._places.get(name) or self.place(name)
            words, layout, tell = self.words, self._layout, 0
            changes, bank, is_fresh = self._begin(base, mark)
            for place, figures in enumerate(parts):
                of = layout.parts[place]
                if figures and figures[0]:
                    tell |= self._add_whole(figures, of, base, bank, changes, is_fresh=is_fresh) << 4 * place
                else:
                    changes += (base + of.empty, words[base + of.empty] + 1)
            if tell & (LARGE_PART | LARGE_PART << 4):
                changes += (base + words_of.LARGE, words[base + words_of.LARGE] + 1)
            self._commit(changes)
        finally:
            self._busy.release()
        if self._updates:
            self._work_off()
        return tell

    def _add_whole(  # noqa: PLR0913 - of one update
        self,
        figures: tuple[int, int, int, int],
        of: PartWords,
        base: int,
        bank: int,
        changes: list[int],
        *,
        is_fresh: bool,
    ) -> int:
        """Add a part whose repr is whole to *changes*. Returns what there is to tell."""
        chars, size, header, levels = figures
        words, layout = self.words, self._layout
        bucket = bisect_left(layout.bounds, chars)
        at, of_chars, of_need = base + of.chars, base + of.chars_le + bucket, base + of.need
        changes += (at, words[at] + chars, of_chars, words[of_chars] + 1, of_need, words[of_need] + header)
        at = base + of.need_le + bisect_left(layout.bounds, header)
        changes += (at, words[at] + 1)
        at, tell = base + bank + of.max_chars, 0
        if is_fresh or chars > words[at]:
            changes += (at, chars)
            tell = NEW_MAXIMUM
        at = base + bank + of.max_need
        if is_fresh or header > words[at]:
            changes += (at, header)
        if chars > layout.large_chars:
            changes += (base + of.large, words[base + of.large] + 1)
            tell |= LARGE_PART
        if size != chars:  # not ASCII
            at, of_bytes = base + of.bytes_le, bisect_left(layout.bounds, size)
            changes += (base + of.bytes, words[base + of.bytes] + size - chars)
            if of_bytes != bucket:
                changes += (at + bucket, words[at + bucket] - 1, at + of_bytes, words[at + of_bytes] + 1)
            of_max = base + bank
            for at, value in ((of_max + of.max_bytes, size), (of_max + of.max_density, -(-size * 1000 // chars))):
                if is_fresh or value > words[at]:
                    changes += (at, value)
        if header > DEFAULT_LIMIT or levels > DEFAULT_LEVELS:
            tell |= SHOWS_LIMIT
        return tell | AT_ONCE if size > layout.at_once_bytes else tell

    def update(self, name: str, adds: Mapping[int, int], maxima: Mapping[int, int]) -> None:
        """Count what was measured in Python: see ``Layout.changes``."""
        base, mark = self.place(name)
        if compiled is not None:
            compiled.update(self.words, base, mark, self._plan, adds, maxima)
            return
        self._updates.append((base, mark, adds, maxima))
        self._work_off()

    def _work_off(self) -> None:
        """Make the updates that wait. If another thread is counting, that one makes them, so none waits."""
        while self._updates and self._busy.acquire(blocking=False):
            try:
                while self._updates:
                    self._apply(*self._updates.popleft())
            finally:
                self._busy.release()

    def _apply(self, base: int, mark: int, adds: Mapping[int, int], maxima: Mapping[int, int]) -> None:
        words = self.words
        changes, bank, is_fresh = self._begin(base, mark)
        for word, number in adds.items():
            changes += (base + word, words[base + word] + number)
        for word, value in maxima.items():
            at = base + bank + word
            if value > (0 if is_fresh else words[at]):
                changes += (at, value)
        self._commit(changes)

    def _begin(self, base: int, mark: int) -> tuple[list[int], int, bool]:
        """Begin an update.

        Returns its first changes (words, each followed by its new value), the place of the bank of maxima, and whether
        that bank is a fresh one.
        """
        words = self.words
        if self._is_unfinished:  # an exception or a signal ended an update
            self._finish_update()
        epoch = words[EPOCH]
        at = base + words_of.EPOCHS + (epoch & 1)
        changes = [mark, words[mark] + 1]
        is_fresh = words[at] != epoch
        if is_fresh:
            changes += (at, epoch)
            for word in self._layout.maxima[epoch & 1]:
                changes += (base + word, 0)
        return changes, (epoch & 1) * BANK, is_fresh

    def _commit(self, changes: list[int]) -> None:
        _words(len(changes)).pack_into(self.words, REDO * _WORD, *changes)
        self._is_unfinished = True
        self.words[PENDING] = len(changes) // 2
        self._make(changes)

    def _finish_update(self) -> None:
        """Make the changes in the redo record. Whoever finds them half made makes all of them again."""
        pending = self.words[PENDING]
        if pending:
            self._make(self.words[REDO : REDO + 2 * pending].tolist())

    def _make(self, changes: list[int]) -> None:
        words = self.words
        for place in range(0, len(changes), 2):  # takes less time than zip
            words[changes[place]] = changes[place + 1]
        self._made += 1
        words[UPDATES] = self._made
        words[PENDING] = 0
        self._is_unfinished = False


class Reader:
    """What the main process has read from one region."""

    def __init__(self, region: Region, rules: Rules) -> None:
        self._region = region
        self._layout = rules.layout
        self._unpack = struct.Struct(f"={len(rules.layout.names)}q").unpack
        self._nothing = bytes(len(rules.layout.names) * _WORD)
        self._marks: list[int] = []
        self._read: list[bytes] = []

    def differences(self) -> Iterator[tuple[str, TaskStats]]:
        """What was counted since the last call, by task name.

        What was given counts as read once the next is asked for.
        """
        words = self._region.words
        used = words[NAMES]
        self._marks += [0] * (used - len(self._marks))
        self._read += [self._nothing] * (used - len(self._read))
        if words[_MARKS : _MARKS + used].tolist() == self._marks:
            return
        for slot in range(used):
            if words[_MARKS + slot] != self._marks[slot]:
                mark, data = self._copy(slot) or (self._marks[slot], b"")
                if mark != self._marks[slot]:
                    yield self._region.name(slot), self._difference(self._read[slot], data)
                    self._marks[slot], self._read[slot] = mark, data

    def _copy(self, slot: int) -> tuple[int, bytes] | None:
        """Mark and words of *slot*, as of one moment; ``None`` if updates come too fast for that."""
        words, begin = self._region.words, self._region.base(slot)
        end = begin + len(self._nothing) // _WORD
        for tried in range(10):
            before = words[UPDATES], words[PENDING]
            mark, data = words[_MARKS + slot], bytes(words[begin:end])
            redo = words[REDO : REDO + 2 * before[1]].tolist()
            if before[1]:  # being made; or its process was stopped or killed, and it stays so
                time.sleep(0.001)
            if (words[UPDATES], words[PENDING]) != before or (before[1] and not tried):
                continue
            if before[1]:
                changed = dict(zip(redo[::2], redo[1::2], strict=True))
                copy = [changed.get(begin + at, value) for at, value in enumerate(self._unpack(data))]
                mark, data = changed.get(_MARKS + slot, mark), struct.pack(f"={len(copy)}q", *copy)
            return mark, data
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
        counts, largest = self._layout.named({word: new[word] - old[word] for word in changed}, maxima)
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
        view = memoryview(mmap.mmap(fd, regions * size))
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

    def close(self) -> None:
        """Close the file. The memory lives as long as someone counts in it."""
        if self._file is not None:
            os.close(self._file.fd)


class _File:
    """Tells which regions are in use by locks on its bytes. For spawned children it is the memory too."""

    def __init__(self, path: str | None, regions: int, size: int) -> None:
        self._size = size if path is not None else 0
        self.fd = self._open(path, regions * size)
        self._inode = os.fstat(self.fd).st_ino
        for number in range(regions):
            self._allocate(number, mmap.PAGESIZE)  # what the main process reads of each

    @staticmethod
    def _open(path: str | None, size: int) -> int:
        if path is not None:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.ftruncate(fd, size)
        elif hasattr(os, "memfd_create"):
            fd = os.memfd_create("celery-argsize")
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        return fd

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
