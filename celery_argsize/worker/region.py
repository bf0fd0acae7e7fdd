"""The counters of one process, in memory that the worker's main process reads. docs/shared-memory.md has the layout.

Only one process counts in a region, so it needs no lock. A record of the changes
that are being made keeps a SIGKILL from tearing an update.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.figures import layout as words_of
from celery_argsize.figures.counters import OTHER
from celery_argsize.figures.layout import BANK, Changes
from celery_argsize.measuring.foreign import usual_sizes
from celery_argsize.measuring.measurement import NAME_BYTES, clean, measure_plain
from celery_argsize.measuring.walk import compiled

if TYPE_CHECKING:
    from celery_argsize.figures.counters import Rules

#: The first words of a region: updates made; changes of the one being made; epoch of the maxima; task names in use;
#: pid of the last process that claimed it; resets of the figures. The main process sets the epoch and the resets.
UPDATES, PENDING, EPOCH, NAMES, OWNER, RESETS, REDO = range(7)
#: Changes in the redo record, of two words each: a word, and its new value.
MAX_CHANGES: Final = 96
#: Then come the names, one for each task, and then the counters.
_NAMES_FROM: Final = REDO + 2 * MAX_CHANGES
#: Words of a task name: its length in bytes, then the bytes.
_NAME_WORDS: Final = 1 + NAME_BYTES // 8
#: Bytes of a word.
WORD: Final = 8


#: What ``Region.count`` returns if it has counted nothing.
UNSETTLED: Final = -1
#: What ``compiled.count`` returns if it must know the sizes of leaves that it has set aside.
_LEAVES: Final = -2


@cache
def _words(number: int) -> struct.Struct:
    return struct.Struct(f"={number}q")


@dataclass
class _Update:
    """One that waits to be made in the pure twin."""

    base: int
    changes: Changes
    tell: int
    """What there is to tell. Until it is made, its maxima may be new."""


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
        self._slots: dict[str, int] = {}
        self._places: dict[str, int] = {}
        self._updates: deque[_Update] = deque()
        self._busy = threading.Lock()
        #: Held while a name is added. Other threads wait for that, but not for ever.
        self._naming = threading.Lock()

    def is_mine(self) -> bool:
        """Whether no other process has claimed it."""
        return bool(self.words[OWNER] == self._pid)

    @staticmethod
    def bytes_for(rules: Rules, names: int) -> int:
        """The size of a region for as many *names*, in whole pages."""
        words = _NAMES_FROM + (names + 1) * (_NAME_WORDS + len(rules.layout.names))
        return -(-words * WORD // mmap.PAGESIZE) * mmap.PAGESIZE

    def claim(self) -> Region:
        """Begin to count in it, or go on where an earlier process has ended."""
        self._finish_update()
        self._pid = self.words[OWNER] = os.getpid()
        self._slots = {self.name(slot): slot for slot in range(self.words[NAMES])}
        self._places = {OTHER: self.base(0)}
        if not self._slots:
            self._add_name(OTHER)
        return self

    # -- places

    def base(self, slot: int) -> int:
        """The first word of the counters in *slot*."""
        return _NAMES_FROM + self._most * _NAME_WORDS + slot * self._size

    def name(self, slot: int) -> str:
        """The task whose counters are in *slot*."""
        at = _NAMES_FROM + slot * _NAME_WORDS
        return bytes(self.words[at + 1 : at + _NAME_WORDS])[: self.words[at]].decode()

    def place(self, name: Any) -> int:
        """The first word of the counters of *name*: those of ``OTHER`` if there is no more room."""
        place = self._places.get(name)
        if place is None:
            slot = self._add_name(clean(name, NAME_BYTES))
            place = self.base(slot or 0)
            if slot is not None and len(self._places) <= self._most and len(name) <= NAME_BYTES:
                self._places[name] = place
        return place

    def _add_name(self, name: str) -> int | None:
        """The slot of *name*, or that of ``OTHER`` if there is no more room. ``None``: another thread adds one."""
        if name in self._slots or not self._naming.acquire(timeout=0.1):
            return self._slots.get(name)
        try:
            slot = self._slots.get(name, self.words[NAMES])
            if slot == self._most:
                return 0  # OTHER came first
            at, data = _NAMES_FROM + slot * _NAME_WORDS, name.encode()
            self.words[at + 1 : at + _NAME_WORDS] = memoryview(data.ljust(NAME_BYTES, b"\0")).cast("q")
            self.words[at] = len(data)
            self.words[NAMES] = max(slot + 1, self.words[NAMES])  # only now it is seen
            self._slots[name] = slot
            return slot
        finally:
            self._naming.release()

    def largest(self, name: str) -> tuple[int, ...]:
        """The largest characters of args and of kwargs in this epoch."""
        base, epoch = self.place(name), self.words[EPOCH]
        if self.words[base + words_of.EPOCHS + (epoch & 1)] != epoch:
            return (0, 0)
        return tuple(self.words[base + word + (epoch & 1) * BANK] for word in self._layout.largest)

    # -- counting

    def count(self, name: str, args: Any, argsrepr: Any, kwargs: Any, kwargsrepr: Any) -> int:
        """Measure and count a run, if that takes little.

        Returns what there is to tell about it (``layout.NEW_MAXIMUM`` …); or ``UNSETTLED``, having counted nothing:
        then ``measure_part`` and ``update`` do it.
        """
        if compiled is None:
            return self._count_plain(name, measure_plain(args, argsrepr), measure_plain(kwargs, kwargsrepr))
        words, base, plan = self.words, self._places.get(name) or self.place(name), self._plan
        a: list[Any] = []
        b: list[Any] = []
        tell: int = compiled.count(words, base, plan, args, argsrepr, a, kwargs, kwargsrepr, b, ())
        if tell == _LEAVES:
            leaves = usual_sizes(a, b)
            if leaves is None:
                return UNSETTLED
            tell = compiled.count(words, base, plan, args, argsrepr, [], kwargs, kwargsrepr, [], leaves)
        return tell

    def update(self, name: str, changes: Changes) -> int:
        """Count a run that was measured in Python. Returns what there is to tell about it."""
        base = self._places.get(name) or self.place(name)
        if compiled is not None:
            tell: int = compiled.update(self.words, base, self._plan, changes.adds, changes.maxima)
            return tell | changes.tell
        update = _Update(base, changes, changes.tell | self._layout.new_maxima)
        self._updates.append(update)
        self._work_off()
        return update.tell

    def _work_off(self) -> None:
        """Make the updates that wait. If another thread is making one, that makes them all, so none waits."""
        while self._updates and self._busy.acquire(False):  # noqa: FBT003 - a keyword takes time
            try:
                while self._updates:
                    self._make_update(self._updates.popleft())
            finally:
                self._busy.release()

    def _count_plain(self, name: str, *sizes: tuple[int, int] | None) -> int:
        """Count a run if both parts are plain, as in most runs: the pure twin of ``compiled.count``."""
        if not self._busy.acquire(False):  # noqa: FBT003 - a keyword takes time
            return UNSETTLED
        try:
            base = self._places.get(name) or self.place(name)
            words, bounds, tell = self.words, self._layout.bounds, 0
            changes, bank, is_fresh = self._begin(base)
            for place, size in enumerate(sizes):
                if size is None or size[0] > self._layout.plain_chars:
                    return UNSETTLED
                of = self._layout.parts[place]
                chars, need = size
                if not chars:
                    changes += (base + of.empty, words[base + of.empty] + 1)
                    continue
                at, at_chars, at_need = base + of.chars, base + of.chars_le, base + of.need
                at_chars += bisect_left(bounds, chars)
                changes += (at, words[at] + chars, at_chars, words[at_chars] + 1, at_need, words[at_need] + need)
                at = base + of.need_le + bisect_left(bounds, need)
                changes += (at, words[at] + 1)
                at = base + bank + of.max_need
                if is_fresh or need > words[at]:
                    changes += (at, need)
                at = base + bank + of.max_chars
                if is_fresh or chars > words[at]:
                    changes += (at, chars)
                    tell |= self._layout.largest[of.max_chars]
            self._commit(changes)
        finally:
            self._busy.release()
        if self._updates:
            self._work_off()
        return tell

    def _make_update(self, update: _Update) -> None:
        words, base, new, tell = self.words, update.base, update.changes, update.changes.tell
        changes, bank, is_fresh = self._begin(base)
        for word, number in new.adds.items():
            changes += (base + word, words[base + word] + number)
        for word, value in new.maxima.items():
            at = base + bank + word
            if value > (0 if is_fresh else words[at]):
                changes += (at, value)
                tell |= self._layout.largest.get(word, 0)
        update.tell = tell
        self._commit(changes)

    def _begin(self, base: int) -> tuple[list[int], int, bool]:
        """Begin an update.

        Returns its first changes (words, each followed by its new value), the place of the bank of maxima, and whether
        that bank is a fresh one.
        """
        words = self.words
        if self._is_unfinished:  # an exception or a signal ended an update
            self._finish_update()
        epoch = words[EPOCH]
        at = base + words_of.EPOCHS + (epoch & 1)
        changes: list[int] = []
        is_fresh = words[at] != epoch
        if is_fresh:
            changes += (at, epoch)
            for word in self._layout.maxima[epoch & 1]:
                changes += (base + word, 0)
        return changes, (epoch & 1) * BANK, is_fresh

    def _commit(self, changes: list[int]) -> None:
        _words(len(changes)).pack_into(self.words, REDO * WORD, *changes)
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
        words[UPDATES] += 1
        words[PENDING] = 0
        self._is_unfinished = False
