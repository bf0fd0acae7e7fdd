"""The shape of the whole repr where Celery cut it: its length, its levels, what makes it slow.

The repr is not written, as saferepr takes quadratic time. It differs from the
compact JSON, which is measured anyway, by a blank after each comma and colon and
by escapes. These are counted in the JSON. A value with something that JSON lacks
is walked through instead, which is slower.

The length is exact for a value that came as JSON, with two exceptions. An int key
that came as text adds 2 characters. A tuple of one member that came as a list
takes 1 away, unless the header shows it.
"""

from __future__ import annotations

import re
from collections import Counter
from decimal import Decimal
from json.encoder import encode_basestring_ascii
from numbers import Number
from operator import add
from typing import Any, Final, NamedTuple

from celery_argsize.measuring.json_size import MAX_CHARS, Size, encode, measure
from celery_argsize.measuring.slicing import FRAME, slices

#: Most characters that are walked through, which takes about 50 ms. Later pieces
#: are estimated by the densest walked one.
WALKED: Final = 512 * 1024
#: Pieces of fewer characters are always walked: that is as fast as encoding them.
SMALL: Final = 256

#: Signs in a header of what JSON does not show: objects,
#: and tuples of one member.
_ODD: Final = re.compile(r"[ (\[{]<|,\)(?!$)")

#: Ints, as ``39 in data`` is faster than ``b"'" in data``.
APOSTROPHE, BACKSLASH, DEL = b"'\\\x7f"

_PUNCTUATION: Final = b',:[]{}"'
_OTHERS: Final = bytes(set(range(256)) - set(_PUNCTUATION))
_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_NOT_ASCII: Final = bytes(range(0x80, 0x100))
#: First UTF-8 bytes of characters beyond the basic plane.
_BEYOND: Final = (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4")


class Shape(NamedTuple):
    """The repr that would be sent if nothing were cut, and the one that was sent."""

    need: int
    """Its length in characters: the limit with which
    saferepr cuts nothing by size."""
    levels: int
    """Nested containers, the part itself included: the ``task_repr_maxlevels``
    with which nothing is cut by depth."""
    bytes: int
    """Its length in UTF-8: what AMQP brokers carry."""
    escaped: int
    """Its length as a text in JSON (``json.dumps``, ASCII):
    what other brokers carry."""
    sent_bytes: int
    """The length in UTF-8 of the repr that was sent."""
    sent_escaped: int
    """The length as a text in JSON of the repr that was sent."""
    commas: int
    """Separators between members."""
    keys: int
    """Dict items."""
    containers: int
    """Lists, tuples, dicts and sets, the part itself included."""
    chain_steps: int
    """Estimate of what makes saferepr quadratic: it chains iterators, and each
    container adds a step for every container opened before it in the same one."""


class _Piece(NamedTuple):
    """Counts of one piece of a part, or of all pieces."""

    need: int
    commas: int
    keys: int
    escaped: int
    levels: int = 0
    heights: tuple[int, ...] = ()
    """Numbers of containers that hold none, of containers
    that hold these, and so on."""


class _Total:
    """The sum of pieces."""

    def __init__(self) -> None:
        self._sums = [0] * 4  # need, commas, keys, escaped
        self._levels = 0
        self._heights: list[int] = []
        self._frames: Counter[int] = Counter()  # containers that were cut up, by level

    def add(self, piece: _Piece, level: int) -> None:
        self._sums = [*map(add, self._sums, piece[:4])]
        self._heights += [0] * (len(piece.heights) - len(self._heights))
        for height, count in enumerate(piece.heights):
            self._heights[height] += count
        self._levels = max(self._levels, piece.levels and level + piece.levels - 1)

    def add_frame(self, members: int, level: int) -> None:
        """Add the brackets and separators of a container whose members come one by one."""
        self.add(_Piece(2 * members, members - 1, 0, 2 * members, levels=1), level)
        self._frames[level] += 1

    def piece(self) -> _Piece:
        need, commas, keys, escaped = self._sums
        frames = (self._frames[level] for level in sorted(self._frames, reverse=True))
        return _Piece(need, commas, keys, escaped, self._levels, (*self._heights, *frames))


def measure_shape(part: object, header: str = "") -> tuple[Size, Shape | None] | None:
    """Size of *part* as compact JSON, and the shape of its repr, of which *header* was sent.

    ``None`` if it has no JSON form. The shape is ``None`` if an object in
    it has a JSON form, but no repr.
    """
    try:
        return _measure_shape(part, header)
    except Exception:  # noqa: BLE001 - objects' own code may raise anything
        size = measure(part)
        return size and (size, None)


def _measure_shape(part: object, header: str) -> tuple[Size, Shape] | None:
    odd = _is_odd(header)
    comma = type(part) is list and len(part) == 1 and header.startswith("(")  # "(1,)"
    chars = size = walked = 0
    density, total = 0.0, _Total()
    for value, frame, level in slices(part):
        chars -= frame
        size -= frame
        if value is FRAME:
            total.add_frame(-frame - 1, level)
            continue
        (more_chars, more_bytes), data = encode(value, None)
        chars += more_chars
        size += more_bytes
        if chars > MAX_CHARS:
            return None
        if data is not None and not odd:
            piece = _count_text(value, more_chars, data) if type(value) is str else _count(more_chars, data)
        elif walked < WALKED or more_chars < SMALL:
            piece = _Walk(tuples=odd).through(value)
            walked += more_chars
            density = max(density, piece.need / max(1, more_chars))
        else:
            piece = _guess(more_chars, density)
        if value is part:
            # a walk has counted the comma
            return Size(chars, size), _shape(piece, header, size - chars, comma=comma and not odd)
        total.add(_without_frame(piece, value, frame) if frame else piece, level)
    return Size(chars, size), _shape(total.piece(), header, size - chars, comma=comma)


def _shape(piece: _Piece, header: str, extra: int, *, comma: bool) -> Shape:
    """The shape of a part. *extra*: its UTF-8 bytes less its characters; *comma*: of a tuple of one."""
    need = piece.need + comma
    return Shape(
        need,
        piece.levels,
        need + extra,
        piece.escaped + comma,
        len(header) if header.isascii() else len(header.encode("utf-8", "surrogatepass")),
        len(encode_basestring_ascii(header)) - 2,
        piece.commas,
        piece.keys,
        sum(piece.heights),
        _chain_steps(piece.heights),
    )


def _chain_steps(heights: tuple[int, ...]) -> int:
    """``Shape.chain_steps``, as if containers were evenly spread."""
    steps, below = 0.0, 0
    for count, holders in zip(heights, (*heights[1:], 1), strict=True):
        below += count
        steps += count / max(1, holders) * below
    return min(round(steps), 1 << 40)  # sums stay within 64 bits


def _without_frame(piece: _Piece, value: Any, frame: int) -> _Piece:
    """*piece* without what encoding *value* on its own added (see ``slices``)."""
    if frame < 0:  # base64: 4 characters in the JSON for 3 bytes, which saferepr shows as 6 hex digits
        more = -frame * 3 // 2 + 4
        return piece._replace(need=piece.need + more, escaped=piece.escaped + more)
    if isinstance(value, str):  # its quotes: those of the whole text are counted already
        return piece._replace(need=piece.need - 2, escaped=piece.escaped - 2)
    around = frame + len(value) - 1  # brackets, commas and the blanks after them
    return piece._replace(
        need=piece.need - around,
        commas=piece.commas - (len(value) - 1),
        escaped=piece.escaped - around,
        heights=piece.heights[:-1],
    )


def _is_odd(header: str) -> bool:
    """Whether *header* shows, outside texts, what JSON does not."""
    if "<" not in header and header.find(")") in {-1, len(header) - 1}:
        return False
    return _ODD.search(outside_quotes(header)) is not None


def outside_quotes(header: str) -> str:
    """*header* with each text replaced by one quote."""
    return "'".join(header.replace("\\'", "").split("'")[::2])


def _guess(chars: int, density: float) -> _Piece:
    """Estimate by the *density* of another piece, and 5 % more. *chars*: of its JSON."""
    need = round(chars * density * 1.05)
    return _Piece(need, chars // 20, 0, need, 1, (chars // 100, 1))


# -- counted in the JSON


def _count(chars: int, data: bytes) -> _Piece:
    """Counts of a value, from its JSON *data* of *chars* characters."""
    apostrophes = data.count(b"'") if APOSTROPHE in data else 0  # saferepr escapes them, JSON does not
    rest, sequences, codes = data, 0, 0
    if BACKSLASH in data:
        rest = data.replace(b"\\\\", b"")
        pairs = (len(data) - len(rest)) // 2
        sequences = pairs + rest.count(b"\\")
        codes = rest.count(b"\\u")  # six characters for one
        rest = rest.replace(b'\\"', b"")
    marks = _punctuation(rest)
    commas, keys = marks.count(b","), marks.count(b":")
    heights, brackets = [], marks.translate(_BRACKETS, b",:")
    while brackets:  # the innermost containers first
        rest = brackets.replace(b"[]", b"")
        heights.append((len(brackets) - len(rest)) // 2)
        brackets = rest
    need = chars + commas + keys + apostrophes - sequences - 4 * codes
    escaped = need + sequences + 4 * codes + apostrophes + _escapes(chars, data)
    return _Piece(need, commas, keys, escaped, len(heights), tuple(heights))


def _count_text(text: str, chars: int, data: bytes) -> _Piece:
    """Counts of one *text*, whose JSON *data* has *chars* characters."""
    apostrophes = text.count("'") if "'" in text else 0
    need = len(text) + 2 + apostrophes
    return _Piece(need, 0, 0, chars + 2 * apostrophes + _escapes(chars, data))


def _punctuation(data: bytes) -> bytes:
    """The punctuation outside texts. *data*: JSON without escaped quotes."""
    marks = data.translate(None, _OTHERS).replace(b'""', b"")
    return b"".join(marks.split(b'"')[::2]) if b'"' in marks else marks


def _escapes(chars: int, data: bytes) -> int:
    """Characters that ASCII JSON adds: an escape has six, beyond the basic plane twelve; also for DEL."""
    more = 5 * data.count(b"\x7f") if DEL in data else 0
    if data.isascii():
        return more
    beyond = sum(data.count(lead) for lead in _BEYOND)
    return more + 5 * (chars - len(data.translate(None, _NOT_ASCII))) + 6 * beyond


# -- counted in a walk through the value


class _Walk:
    """A walk through a value. With *tuples*, a list of one member counts as the tuple it may have been: ``(1,)``."""

    def __init__(self, *, tuples: bool) -> None:
        self._tuples = tuples
        self.need = self.commas = self.keys = self.escaped = 0
        self._levels: list[int] = []
        self._todo: list[tuple[Any, int]] = []

    def through(self, obj: Any) -> _Piece:
        """Counts of *obj*."""
        self._todo.append((obj, 1))
        while self._todo:
            self._step(*self._todo.pop())
        heights = tuple(reversed(self._levels))  # as if all branches went as deep
        return _Piece(self.need, self.commas, self.keys, self.escaped, len(heights), heights)

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
        """*more*: quotes and backslashes that saferepr adds; 0 where it shows no text."""
        self.need += len(text) + more
        # in JSON, the backslash before an apostrophe is escaped itself
        self.escaped += len(encode_basestring_ascii(text)) - 2 + (more and 2 * more - 2)

    def _bytes(self, obj: bytes) -> None:
        try:
            shown = max(len(obj), len(obj.decode()))  # saferepr compares the limit with the bytes
        except UnicodeDecodeError:
            shown = 2 * len(obj)
        self.need += shown + 3
        self.escaped += 6 * shown + 3

    def _container(self, obj: Any, kind: type, level: int) -> None:
        base: Any = next(base for base in (dict, list, tuple, set, frozenset) if issubclass(kind, base))
        count = base.__len__(obj)  # a subclass's own methods may never end
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
