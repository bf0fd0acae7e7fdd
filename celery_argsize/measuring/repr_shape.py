"""What the whole repr of a value would be: its length, its levels, and what makes it slow; without making it.

Pure. Only for parts whose repr Celery cut: where it did not, the header itself is the repr. The repr is not written, as
saferepr needs time that grows with the square of the containers: it differs from the compact JSON, which is measured
anyway, by a blank behind each comma and colon and by the escapes, and those are counted in the JSON. What JSON lacks
is walked through, slower.

Exact for what JSON brings. Above it: int keys that came as text, by 2 characters each. Below it: tuples of one member
that came as lists and stand only behind the cut, where nobody can see what they were, by 1 character each.
"""

from __future__ import annotations

import re
from collections import Counter
from decimal import Decimal
from json.encoder import encode_basestring_ascii
from numbers import Number
from typing import Any, Final, NamedTuple

from celery_argsize.measuring.json_size import MOST, Size, encode, measure
from celery_argsize.measuring.slicing import FRAME, slices


class Shape(NamedTuple):
    """The repr that would be sent if nothing were cut, and what was sent of it."""

    need: int
    """Its length in characters: the limit with which saferepr cuts nothing by size."""
    levels: int
    """Nested containers, the part itself included: the ``task_repr_maxlevels`` with which nothing is cut by depth."""
    bytes: int
    """Its length in UTF-8: what AMQP brokers carry."""
    escaped: int
    """Its length as a text in JSON (``json.dumps``, ASCII): what other brokers carry."""
    sent_bytes: int
    """The same of the repr that was sent."""
    sent_escaped: int
    commas: int
    """Separators between members."""
    keys: int
    """Dict items."""
    texts: int
    """Members that are texts (or bytes, or shown like these); keys are not among them."""
    containers: int
    """Lists, tuples, dicts and sets, the part itself included."""
    pile: int
    """How containers pile up: what makes saferepr slow, which reaches each member of a container through all the
    containers opened in it before. From the number of containers at each level, as if evenly spread."""


class _Sum:
    """What the pieces add up to."""

    def __init__(self) -> None:
        self.need = self.commas = self.keys = self.texts = self.escaped = self.levels = 0
        self.heights: list[int] = []  # containers that hold none, those that hold these, …
        self.frames: Counter[int] = Counter()  # containers that were cut up, by level

    def add(self, piece: _Piece, level: int) -> None:
        self.need += piece.need
        self.commas += piece.commas
        self.keys += piece.keys
        self.texts += piece.texts
        self.escaped += piece.escaped
        self.heights += [0] * (len(piece.heights) - len(self.heights))
        for height, count in enumerate(piece.heights):
            self.heights[height] += count
        self.levels = max(self.levels, piece.levels and level + piece.levels - 1)

    def add_frame(self, members: int, level: int) -> None:
        """Add the brackets and separators of a container whose members come one by one."""
        self.add(_Piece(2 * members, 1, members - 1, 0, 0, 2 * members), level)
        self.frames[level] += 1

    @property
    def piece(self) -> _Piece:
        """All of it."""
        heights = (*self.heights, *(self.frames[level] for level in sorted(self.frames, reverse=True)))
        return _Piece(self.need, self.levels, self.commas, self.keys, self.texts, self.escaped, heights)


class _Piece(NamedTuple):
    """As ``Shape``, for a part of the whole."""

    need: int
    levels: int
    commas: int
    keys: int
    texts: int
    escaped: int
    heights: tuple[int, ...] = ()


def _pile(heights: tuple[int, ...]) -> int:
    """The sum over all containers of how many were opened before them within the one that holds them."""
    pile, below, above = 0.0, 0, (*heights[1:], 1)
    for count, holders in zip(heights, above, strict=True):
        below += count
        pile += count / max(1, holders) * below
    return min(round(pile), 1 << 40)  # sums stay within 64 bits


#: Characters that are walked through, about 50 ms. Longer values are taken to go on as they began, but for pieces so
#: small that a walk takes no longer than encoding them did.
WALKED: Final = 512 * 1024
SMALL: Final = 256

#: Signs in a header of what the value's JSON does not show: objects, and tuples of one member.
_ODD: Final = re.compile(r"[ (\[{]<|,\)(?!$)")

APOSTROPHE, BACKSLASH, DEL = b"'\\\x7f"  # as numbers, they are found faster

_PUNCTUATION: Final = b',:[]{}"'
_OTHERS: Final = bytes(set(range(256)) - set(_PUNCTUATION))
_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_NOT_ASCII: Final = bytes(range(0x80, 0x100))
#: What characters beyond the basic plane begin with in UTF-8.
_BEYOND: Final = (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4")


def measure_shape(part: object, header: str = "") -> tuple[Size, Shape | None] | None:
    """Size of *part* as compact JSON and the shape of its repr, of which *header* is what was sent.

    ``None`` if it has no JSON form; without a shape if an object in it has a JSON form, but no repr.
    """
    try:
        return _measure_shape(part, header)
    except Exception:  # noqa: BLE001 - whatever a foreign object's own code raises means: no JSON form, or no repr
        size = measure(part)
        return size and (size, None)


def _measure_shape(part: object, header: str) -> tuple[Size, Shape] | None:
    odd = _is_odd(header)
    chars = size = walked = 0
    density, total = 0.0, _Sum()
    for piece, frame, level in slices(part):
        chars -= frame
        size -= frame
        if piece is FRAME:
            total.add_frame(-frame - 1, level)
            continue
        (more_chars, more_bytes), data = encode(piece, None)
        chars += more_chars
        size += more_bytes
        if chars > MOST:
            return None
        if data is not None and not odd:
            text = type(piece) is str
            found = _counted_text(piece, more_chars, data) if text else _counted(more_chars, data)
        elif walked < WALKED or more_chars < SMALL:
            found = _Walk(tuples=odd).through(piece)
            walked += more_chars
            density = max(density, found.need / max(1, more_chars))
        else:
            found = _guessed(more_chars, density)
        if piece is part:
            return Size(chars, size), _shape(found, part, header, size - chars)
        total.add(_less(found, piece, frame) if frame else found, level)
    return Size(chars, size), _shape(total.piece, part, header, size - chars)


def _shape(piece: _Piece, part: object, header: str, wide: int) -> Shape:
    """The shape of *part*, which *piece* says, and of *header*; *wide*: bytes that it has more than characters."""
    need, levels, commas, keys, texts, escaped, heights = piece
    sent_as_tuple = type(part) is list and len(part) == 1 and header.startswith("(")  # "(1,)"
    need += sent_as_tuple
    return Shape(
        need,
        levels,
        need + wide,
        escaped + sent_as_tuple,
        len(header) if header.isascii() else len(header.encode("utf-8", "surrogatepass")),
        len(encode_basestring_ascii(header)) - 2,
        commas,
        keys,
        texts,
        sum(heights),
        _pile(heights),
    )


def _guessed(chars: int, density: float) -> _Piece:
    """A piece that is not looked at, as dense as the densest that was, and then some."""
    need = round(chars * density * 1.05)
    return _Piece(need, 1, chars // 20, 0, 0, need, (chars // 100, 1))


def _is_odd(header: str) -> bool:
    """Whether *header* shows, outside texts, what the value's JSON does not."""
    if "<" not in header and header.find(")") in {-1, len(header) - 1}:
        return False
    return _ODD.search(outside_quotes(header)) is not None


def outside_quotes(header: str) -> str:
    """*header* without its texts, each of which leaves one quote."""
    return "'".join(header.replace("\\'", "").split("'")[::2])


def _less(found: _Piece, piece: Any, frame: int) -> _Piece:
    """*found* without the frame that encoding *piece* added (see ``slices``)."""
    if frame < 0:  # one byte stands for many: 4 characters in the JSON for 3 bytes, of which saferepr makes 6
        more = -frame * 3 // 2 + 4
        return found._replace(need=found.need + more, escaped=found.escaped + more)
    if isinstance(piece, str):  # quotes, of a text that counts already
        return found._replace(need=found.need - 2, escaped=found.escaped - 2, texts=0)
    around = frame + len(piece) - 1  # brackets, commas and the blanks behind them
    return found._replace(
        need=found.need - around,
        commas=found.commas - (len(piece) - 1),
        escaped=found.escaped - around,
        heights=found.heights[:-1],
    )


# -- counted in the JSON ------------------------------------------------------------------------------------------


def _counted(chars: int, data: bytes) -> _Piece:
    """A value, by its JSON, which is ``chars`` long. What a byte is found for is rare, and counted only then."""
    apostrophes = data.count(b"'") if APOSTROPHE in data else 0  # the one that saferepr escapes, and JSON does not
    rest, sequences, codes = data, 0, 0
    if BACKSLASH in data:
        rest = data.replace(b"\\\\", b"")
        pairs = (len(data) - len(rest)) // 2
        sequences = pairs + rest.count(b"\\")
        codes = rest.count(b"\\u")  # six characters for one
        rest = rest.replace(b'\\"', b"")
    marks, quoted = _outside_texts(rest)
    commas, keys = marks.count(b","), marks.count(b":")
    heights, brackets = [], marks.translate(_BRACKETS, b",:")
    while brackets:  # the innermost containers first
        rest = brackets.replace(b"[]", b"")
        heights.append((len(brackets) - len(rest)) // 2)
        brackets = rest
    need = chars + commas + keys + apostrophes - sequences - 4 * codes
    escaped = need + sequences + 4 * codes + apostrophes + _escaped(chars, data)
    return _Piece(need, len(heights), commas, keys, quoted - keys, escaped, tuple(heights))


def _counted_text(text: str, chars: int, data: bytes) -> _Piece:
    """The same for one text."""
    apostrophes = text.count("'") if "'" in text else 0
    need = len(text) + 2 + apostrophes
    return _Piece(need, 0, 0, 0, 1, chars + 2 * apostrophes + _escaped(chars, data))


def _outside_texts(data: bytes) -> tuple[bytes, int]:
    """The punctuation of JSON without escaped quotes, less what is within texts; and how many texts there are."""
    marks = data.translate(None, _OTHERS)
    quoted = marks.count(b'"') // 2
    marks = marks.replace(b'""', b"")
    return b"".join(marks.split(b'"')[::2]) if b'"' in marks else marks, quoted


def _escaped(chars: int, data: bytes) -> int:
    """Characters that JSON in ASCII has more: an escape of six, two of them beyond the basic plane, one for DEL."""
    more = 5 * data.count(b"\x7f") if DEL in data else 0
    if data.isascii():
        return more
    beyond = sum(data.count(lead) for lead in _BEYOND)
    return more + 5 * (chars - len(data.translate(None, _NOT_ASCII))) + 6 * beyond


# -- walked through -----------------------------------------------------------------------------------------------


class _Walk:
    """A walk through a value. With *tuples*, a list of one member counts as the tuple it may have been: ``(1,)``."""

    def __init__(self, *, tuples: bool) -> None:
        self._tuples = tuples
        self.need = self.commas = self.keys = self.texts = self.escaped = 0
        self._levels: list[int] = []
        self._todo: list[tuple[Any, int]] = []

    def through(self, obj: Any) -> _Piece:
        """The counts of *obj*."""
        self._todo.append((obj, 1))
        while self._todo:
            self._step(*self._todo.pop())
        heights = tuple(reversed(self._levels))  # as if all branches went as deep
        return _Piece(self.need, len(heights), self.commas, self.keys, self.texts - self.keys, self.escaped, heights)

    def _step(self, obj: Any, level: int) -> None:
        kind = type(obj)  # an object's __class__ may lie
        if issubclass(kind, str):
            self._text(obj, 2 + str.count(obj, "'"))
        elif issubclass(kind, bytes):
            self._bytes(obj)
        elif issubclass(kind, (dict, list, tuple, set, frozenset)):
            self._container(obj, kind, level)
        else:
            self._text(str(obj) if issubclass(kind, Number) and not issubclass(kind, Decimal) else repr(obj), 0)

    def _text(self, text: str, more: int) -> None:
        self.texts += more > 0
        self.need += len(text) + more
        # its apostrophes get a backslash, which gets another one
        self.escaped += len(encode_basestring_ascii(text)) - 2 + (more and 2 * more - 2)

    def _bytes(self, obj: bytes) -> None:
        try:
            shown = max(len(obj), len(obj.decode()))  # the limit is held against the bytes
        except UnicodeDecodeError:
            shown = 2 * len(obj)
        self.texts += 1
        self.need += shown + 3
        self.escaped += 6 * shown + 3

    def _container(self, obj: Any, kind: type, level: int) -> None:
        base: Any = next(base for base in (dict, list, tuple, set, frozenset) if issubclass(kind, base))
        count = base.__len__(obj)  # what a subclass of its own says may be without end
        around = 2 + (count == 1 and (base is tuple or (self._tuples and base is list)))
        if base in {set, frozenset} and (kind is not set or not count):
            around += len(kind.__name__) + 2
        commas = max(0, count - 1)
        self._levels += [0] * (level - len(self._levels))
        self._levels[level - 1] += 1
        self.commas += commas
        self.need += around + 2 * commas
        self.escaped += around + 2 * commas
        if base is dict:
            self.keys += count
            self.need += 2 * count
            self.escaped += 2 * count
            self._todo += ((key, 1) for key in dict.__iter__(obj))
            self._todo += ((value, level + 1) for value in dict.values(obj))
        else:
            self._todo += ((member, level + 1) for member in base.__iter__(obj))
