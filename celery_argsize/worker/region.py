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
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.figures import layout as words_of
from celery_argsize.figures.counters import OTHER
from celery_argsize.figures.layout import BANK
from celery_argsize.measuring.cuts import DEFAULT_LEVELS, DEFAULT_LIMIT
from celery_argsize.measuring.foreign import sizes_of_leaves
from celery_argsize.measuring.measurement import NAME_BYTES, clean, measure_whole
from celery_argsize.measuring.walk import compiled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.figures.counters import Rules
    from celery_argsize.figures.layout import PartWords

#: The first words of a region: updates made; changes of the one being made; epoch of the
#: maxima, which the main process sets; task names in use; whether a process has claimed it.
UPDATES, PENDING, EPOCH, NAMES, OWNER, REDO = range(6)
#: Changes in the redo record, of two words each: a word, and its new value.
MAX_CHANGES: Final = 96
#: Then come the marks, one for each task name, then the names, then the counters.
MARKS: Final = REDO + 2 * MAX_CHANGES
#: Words of a task name: its length in bytes, then the bytes.
_NAME_WORDS: Final = 1 + NAME_BYTES // 8
#: Bytes of a word.
WORD: Final = 8


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
        words = MARKS + (names + 1) * (1 + _NAME_WORDS + len(rules.layout.names))
        return -(-words * WORD // mmap.PAGESIZE) * mmap.PAGESIZE

    def claim(self) -> Region:
        """Begin to count in it, or go on where an earlier process has ended."""
        self._made = self.words[UPDATES]
        self._finish_update()
        self._pid = self.words[OWNER] = os.getpid()
        self._slots = {self.name(slot): slot for slot in range(self.words[NAMES])}
        self._places = {OTHER: (self.base(0), MARKS)}
        if not self._slots:
            self._add_name(OTHER)
        return self

    # -- places

    def base(self, slot: int) -> int:
        """The first word of the counters in *slot*."""
        return MARKS + self._most * (1 + _NAME_WORDS) + slot * self._size

    def name(self, slot: int) -> str:
        """The task whose counters are in *slot*."""
        at = MARKS + self._most + slot * _NAME_WORDS
        return bytes(self.words[at + 1 : at + _NAME_WORDS])[: self.words[at]].decode()

    def place(self, name: Any) -> tuple[int, int]:
        """The first word of the counters of *name*, and its mark: those of ``OTHER`` if there is no more room."""
        place = self._places.get(name)
        if place is None:
            slot = self._add_name(clean(name, NAME_BYTES))
            place = self.base(slot), MARKS + slot
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
            at, data = MARKS + self._most + slot * _NAME_WORDS, name.encode()
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
        self._made += 1
        words[UPDATES] = self._made
        words[PENDING] = 0
        self._is_unfinished = False
