"""Where each figure of a task lies: the order of the words of its counters in shared memory.

Pure. ``measuring/_compiled.c`` has the same numbers; a change here needs a change
there, and in docs/shared-memory.md.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.measuring.cuts import CUTS, DEFAULT_LEVELS, DEFAULT_LIMIT, VERDICTS
from celery_argsize.measuring.measurement import EMPTY, PARTS
from celery_argsize.measuring.repr_shape import Shape

if TYPE_CHECKING:
    from celery_argsize.measuring.measurement import Part

#: Rises whenever a word gets another meaning.
VERSION: Final = 1

#: Figures of a whole run; and the epochs of the two banks of maxima (see ``Reader``).
_RUN: Final = ("large", "truncated", "unmeasurable", "errors", "epoch", "epoch")
LARGE, TRUNCATED, UNMEASURABLE, ERRORS, EPOCHS, _ = range(len(_RUN))

_VERDICTS: Final = {name: f"by_{name}" if name in CUTS else name for name in VERDICTS if name != "intact"}
#: Fields of ``Shape`` that are summed over truncated parts. Not need and levels.
CUT_SUMS: Final = Shape._fields[2:]
_SUMS: Final = (
    "empty",
    "chars",
    "bytes",
    "need",
    "large",
    "unmeasurable",
    *_VERDICTS.values(),
    *(f"cut_{name}" for name in CUT_SUMS),
)
_MAXIMA: Final = ("max_chars", "max_bytes", "max_density", "max_need", "max_levels")
#: Histograms. *flat* and *deep*: truncated parts of up to ``DEFAULT_LEVELS`` levels, and
#: of more; and their needs.
_HISTOGRAMS: Final = ("chars_le", "bytes_le", "need_le", "flat_le", "deep_le", "flat_need_le", "deep_need_le")

_FIRST_CUT_SUM: Final = f"cut_{CUT_SUMS[0]}"
_FIXED: Final = len(_SUMS) + 2 * len(_MAXIMA)
#: Words from a maximum in the first bank to the same in the second.
BANK: Final = len(_MAXIMA)

#: What there is to tell of the args of a run, and 8 bits higher of its kwargs: a new maximum, a large part, one that is
#: to be written at once. These show something of the sender's limits: a repr that was cut, a long or deep whole one.
NEW_MAXIMUM, LARGE_PART, AT_ONCE, CUT, LONG = 1, 2, 4, 8, 16


class PartWords:
    """The words of one part."""

    def __init__(self, at: int, bounds: tuple[int, ...]) -> None:
        size = len(bounds) + 1
        self.end = at + _FIXED + len(_HISTOGRAMS) * size
        self.word = {name: at + place for place, name in enumerate((*_SUMS, *_MAXIMA))}
        self.first = {name: at + _FIXED + place * size for place, name in enumerate(_HISTOGRAMS)}
        self.verdict = {name: self.word[field] for name, field in _VERDICTS.items()}
        self.maxima = [self.word[name] for name in _MAXIMA]
        #: For a part whose repr is whole.
        self.empty, self.chars, self.bytes, self.need, self.large = (self.word[name] for name in _SUMS[:5])
        self.max_chars, self.max_bytes, self.max_density, self.max_need, _ = self.maxima
        self.chars_le, self.bytes_le, self.need_le, *_ = self.first.values()


class Changes(NamedTuple):
    """An update of one task's counters."""

    adds: dict[int, int]
    """By word, the number to add."""
    maxima: dict[int, int]
    """By word in the first bank, a value that may be a new maximum."""
    tell: int = 0
    """What there is to tell: ``LARGE_PART`` …"""


class Layout:
    """The words of one task's counters, for histograms with these *bounds*."""

    def __init__(self, bounds: tuple[int, ...], large_chars: int, at_once_bytes: int) -> None:
        self.bounds = bounds
        self.large_chars = large_chars
        self.at_once_bytes = at_once_bytes
        #: An ASCII part with no more characters is neither large nor to be written at once.
        self.plain_chars = min(large_chars, at_once_bytes)
        #: All of these, as the compiled module takes them.
        self.plan = struct.pack(f"={len(bounds) + 2}q", large_chars, at_once_bytes, *bounds)
        args = PartWords(len(_RUN), bounds)
        self.parts = (args, PartWords(args.end, bounds))
        labels = (*map(str, bounds), "+Inf")
        histograms = [f"{name}.{label}" for name in _HISTOGRAMS for label in labels]
        #: The field of each word. See docs/redis-schema.md.
        self.names: tuple[str, ...] = (
            *_RUN,
            *(f"{part}.{name}" for part in PARTS for name in (*_SUMS, *_MAXIMA, *_MAXIMA, *histograms)),
        )
        #: Words that hold maxima, by bank. All but these and ``EPOCHS`` are added up.
        self.maxima = tuple(
            frozenset(word + bank * BANK for part in self.parts for word in part.maxima) for bank in range(2)
        )
        #: The words with the largest size of args and of kwargs, and what a new maximum there tells.
        self.largest = {part.max_chars: NEW_MAXIMUM << 8 * place for place, part in enumerate(self.parts)}
        self.new_maxima = sum(self.largest.values())

    def changes(self, args: Part, kwargs: Part) -> Changes:
        """What a run changes."""
        adds: dict[int, int] = {}
        maxima: dict[int, int] = {}
        tell = 0
        for place, part in enumerate((args, kwargs)):
            words = self.parts[place]
            if part is EMPTY:
                adds[words.empty] = 1
                continue
            size, verdict, header, levels, _, shape = part
            if verdict == "intact":
                self._add_need(header, words, adds, maxima)
                if header > DEFAULT_LIMIT or levels > DEFAULT_LEVELS:
                    tell |= LONG << 8 * place
            else:
                adds[words.verdict[verdict]] = 1
                if verdict in CUTS:
                    adds[TRUNCATED] = 1
                    tell |= CUT << 8 * place
                if shape is not None:
                    self._add_shape(shape, words, adds, maxima)
            if size is None:
                adds[UNMEASURABLE] = adds[words.word["unmeasurable"]] = 1
            else:
                tell |= self._add_size(*size, words, adds, maxima) << 8 * place
        return Changes(adds, maxima, tell)

    def _add_size(self, chars: int, size: int, words: PartWords, adds: dict[int, int], maxima: dict[int, int]) -> int:
        bucket, tell = bisect_left(self.bounds, chars), 0
        adds[words.chars] = chars
        adds[words.chars_le + bucket] = 1
        maxima[words.max_chars] = chars
        if size != chars:  # not ASCII
            adds[words.bytes] = size - chars
            of_bytes = bisect_left(self.bounds, size)
            if of_bytes != bucket:
                adds |= {words.bytes_le + bucket: -1, words.bytes_le + of_bytes: 1}
            maxima |= {words.max_bytes: size, words.max_density: -(-size * 1000 // max(1, chars))}  # rounded up
        if chars > self.large_chars:
            adds[LARGE] = adds[words.large] = 1
            tell = LARGE_PART
        return tell | AT_ONCE if size > self.at_once_bytes else tell

    def _add_need(self, need: int, words: PartWords, adds: dict[int, int], maxima: dict[int, int]) -> None:
        """Add the length of a whole repr."""
        adds[words.need] = need
        adds[words.need_le + bisect_left(self.bounds, need)] = 1
        maxima[words.max_need] = need

    def _add_shape(self, shape: Shape, words: PartWords, adds: dict[int, int], maxima: dict[int, int]) -> None:
        self._add_need(shape.need, words, adds, maxima)
        kind, bucket = "deep" if shape.levels > DEFAULT_LEVELS else "flat", bisect_left(self.bounds, shape.need)
        adds[words.first[f"{kind}_le"] + bucket] = 1
        adds[words.first[f"{kind}_need_le"] + bucket] = shape.need
        adds.update(enumerate(shape[2:], start=words.word[_FIRST_CUT_SUM]))
        maxima[words.word["max_levels"]] = shape.levels

    def named(self, changes: Changes) -> tuple[dict[str, int], dict[str, int]]:
        """Numbers to add, and maxima, by the names of fields.

        To save time, some figures are not counted but follow from others. An empty part whose repr is whole only counts
        as ``empty``. The words of bytes hold what they are more than characters: nothing for ASCII.
        """
        adds, largest = {**changes.adds}, {self.names[word]: value for word, value in changes.maxima.items()}
        sizes = [self._name_part(*part, adds, largest) for part in zip(PARTS, self.parts, strict=True)]
        # The args of each run either have a size or are unmeasurable.
        runs = sizes[0] + adds.get(self.parts[0].word["unmeasurable"], 0)
        counts = {"count": runs} | {f"{name}.count": number for name, number in zip(PARTS, sizes, strict=True)}
        counts |= {self.names[word]: number for word, number in adds.items()}
        return {name: number for name, number in counts.items() if number}, largest

    def _name_part(self, name: str, words: PartWords, adds: dict[int, int], largest: dict[str, int]) -> int:
        """Complete the figures of a part. Returns the number of those with a size."""
        buckets = len(self.bounds) + 1
        number = adds.pop(words.empty, 0)
        if number:
            need_le = words.need_le + bisect_left(self.bounds, 2)  # "()"
            for word, value in ((words.chars_le, 1), (words.need, 2), (need_le, 1)):
                adds[word] = adds.get(word, 0) + value * number
            largest[f"{name}.max_need"] = max(2, largest.get(f"{name}.max_need", 0))
        for of_bytes, of_chars, count in ((words.bytes, words.chars, 1), (words.bytes_le, words.chars_le, buckets)):
            for place in range(count):
                adds[of_bytes + place] = adds.get(of_bytes + place, 0) + adds.get(of_chars + place, 0)
        sizes = sum(adds.get(words.chars_le + place, 0) for place in range(buckets))
        if sizes or f"{name}.max_chars" in largest:
            chars = largest.setdefault(f"{name}.max_chars", 0)
            largest[f"{name}.max_bytes"] = max(chars, largest.get(f"{name}.max_bytes", 0))
            if chars:
                largest[f"{name}.max_density"] = max(1000, largest.get(f"{name}.max_density", 0))
        return sizes
