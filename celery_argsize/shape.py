"""What the whole repr of a value would be: its length, its levels, and what makes it slow; without making it.

Pure. Only for parts whose repr Celery cut: where it did not, the header itself is the repr. The repr is not written, as
saferepr needs time that grows with the square of the containers: it differs from the compact JSON, which is measured
anyway, by a blank behind each comma and colon and by the escapes, and those are counted in the JSON. What JSON lacks
is walked through, slower.

Exact for what JSON brings; the exceptions are above it: int keys that came as text (2 characters each), NaN, tuples.
"""

from __future__ import annotations

import re
from decimal import Decimal
from json.encoder import encode_basestring_ascii
from numbers import Number
from typing import Any, Final, NamedTuple

from celery_argsize.measure import FRAME, Size, encode, slices

__all__ = ["Shape", "measure_shape"]


class Shape(NamedTuple):
    """The repr that would be sent if nothing were cut."""

    need: int
    """Its length in characters: the limit with which saferepr cuts nothing by size."""
    levels: int
    """Nested containers, the part itself included: the ``task_repr_maxlevels`` with which nothing is cut by depth."""
    commas: int
    """Separators between members."""
    keys: int
    """Dict items."""
    containers: int
    """Lists, tuples, dicts and sets, the part itself included."""
    escaped: int
    """Characters of the repr as a text in JSON (``json.dumps``, ASCII): what goes to brokers that carry JSON."""


#: Signs in a header of what the value's JSON does not show: objects, and tuples of one member.
_ODD: Final = re.compile(r"[ (\[{]<|,\)(?!$)")

_PUNCTUATION: Final = b',:[]{}"'
_OTHERS: Final = bytes(set(range(256)) - set(_PUNCTUATION))
_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")


def measure_shape(part: object, header: str = "") -> tuple[Size, Shape] | None:
    """Size of *part* as compact JSON and the shape of its repr, of which *header* is what was sent.

    ``None`` if it has no JSON form.
    """
    odd = _ODD.search(header) is not None
    chars = size = 0
    total = Shape(0, 0, 0, 0, 0, 0)
    try:
        for piece, frame, level in slices(part):
            if piece is FRAME:
                counted, shape = Size(0, 0), _frame(-frame - 1)
            else:
                counted, shape = _piece(piece, frame, odd=odd)
            chars += counted.chars - frame
            size += counted.bytes - frame
            total = _add(total, shape, level)
    except Exception:  # noqa: BLE001 - whatever a foreign object's own code raises means: no JSON form
        return None
    if isinstance(part, list) and len(part) == 1 and header.startswith("("):  # sent as a tuple: "(1,)"
        total = total._replace(need=total.need + 1, escaped=total.escaped + 1)
    return Size(chars, size), total


def _add(total: Shape, shape: Shape, level: int) -> Shape:
    levels = max(total.levels, shape.levels and level + shape.levels - 1)
    return Shape(
        total.need + shape.need,
        levels,
        total.commas + shape.commas,
        total.keys + shape.keys,
        total.containers + shape.containers,
        total.escaped + shape.escaped,
    )


def _frame(members: int) -> Shape:
    """The brackets and separators of a container."""
    return Shape(2 * members, 1, members - 1, 0, 1, 2 * members)


def _piece(piece: Any, frame: int, *, odd: bool) -> tuple[Size, Shape]:
    """Size of a piece, as ``measure`` has it, and the shape of what it stands for (see ``slices``)."""
    size, data = encode(piece, None)
    shape = _Walk(tuples=odd).through(piece) if odd or data is None else _counted(size, data)
    if not frame:
        return size, shape
    if frame < 0:  # one byte stands for many: 4 characters in the JSON for 3 bytes, of which saferepr makes 6
        more = -frame * 3 // 2 + 4
        return size, shape._replace(need=shape.need + more, escaped=shape.escaped + more)
    if isinstance(piece, str):  # less its quotes
        return size, shape._replace(need=shape.need - 2, escaped=shape.escaped - 2)
    around = frame + len(piece) - 1  # with the blanks between members
    return size, Shape(
        shape.need - around,
        shape.levels,
        shape.commas - (len(piece) - 1),
        shape.keys,
        shape.containers - 1,
        shape.escaped - around,
    )


# -- counted in the JSON ------------------------------------------------------------------------------------------


def _counted(size: Size, data: bytes) -> Shape:
    """The shape of a value, from its JSON."""
    apostrophes = data.count(b"'")  # the one character that saferepr escapes, and JSON does not
    rest, sequences, codes = data, 0, 0
    if b"\\" in data:
        rest = data.replace(b"\\\\", b"")
        pairs = (len(data) - len(rest)) // 2
        sequences = pairs + rest.count(b"\\")
        codes = rest.count(b"\\u")  # six characters for one
        rest = rest.replace(b'\\"', b"")
    marks = _outside_texts(rest)
    commas, keys = marks.count(b","), marks.count(b":")
    levels, brackets = 0, marks.translate(_BRACKETS, b",:")
    containers = len(brackets) // 2
    while brackets:  # the innermost containers first
        brackets = brackets.replace(b"[]", b"")
        levels += 1
    need = size.chars + commas + keys + apostrophes - sequences - 4 * codes
    escaped = need + sequences + 4 * codes + apostrophes + _escaped(data)
    return Shape(need, levels, commas, keys, containers, escaped)


def _outside_texts(data: bytes) -> bytes:
    """The punctuation of JSON without escaped quotes, less what is within texts."""
    marks = data.translate(None, _OTHERS).replace(b'""', b"")
    return b"".join(marks.split(b'"')[::2]) if b'"' in marks else marks


def _escaped(data: bytes) -> int:
    """Characters that JSON in ASCII has more: an escape of six, two of them beyond the basic plane, one for DEL."""
    more = 5 * data.count(b"\x7f")
    if data.isascii():
        return more
    text = data.decode()
    return (
        more
        + 5 * (len(text) - len(text.encode("ascii", "ignore")))
        + 6 * (len(text.encode("utf-16-le")) // 2 - len(text))
    )


# -- walked through -----------------------------------------------------------------------------------------------


class _Walk:
    """A walk through a value. With *tuples*, a list of one member counts as the tuple it may have been: ``(1,)``."""

    def __init__(self, *, tuples: bool) -> None:
        self._tuples = tuples
        self.need = self.levels = self.commas = self.keys = self.containers = self.escaped = 0
        self._todo: list[tuple[Any, int]] = []

    def through(self, obj: Any) -> Shape:
        """The shape of *obj*."""
        self._todo.append((obj, 1))
        while self._todo:
            self._step(*self._todo.pop())
        return Shape(self.need, self.levels, self.commas, self.keys, self.containers, self.escaped)

    def _step(self, obj: Any, level: int) -> None:
        if isinstance(obj, str):
            self._text(obj, 2 + obj.count("'"))
        elif isinstance(obj, bytes):
            self._bytes(obj)
        elif isinstance(obj, (dict, list, tuple, set, frozenset)):
            self._container(obj, level)
        else:
            self._text(str(obj) if isinstance(obj, Number) and not isinstance(obj, Decimal) else repr(obj), 0)

    def _text(self, text: str, more: int) -> None:
        self.need += len(text) + more
        # its apostrophes get a backslash, which gets another one
        self.escaped += len(encode_basestring_ascii(text)) - 2 + (more and 2 * more - 2)

    def _bytes(self, obj: bytes) -> None:
        try:
            shown = max(len(obj), len(obj.decode()))  # the limit is held against the bytes
        except UnicodeDecodeError:
            shown = 2 * len(obj)
        self.need += shown + 3
        self.escaped += 6 * shown + 3

    def _container(self, obj: Any, level: int) -> None:
        count = len(obj)
        around = 2 + (count == 1 and (isinstance(obj, tuple) or (self._tuples and isinstance(obj, list))))
        if isinstance(obj, (set, frozenset)) and (type(obj) is not set or not obj):
            around += len(type(obj).__name__) + 2
        commas = max(0, count - 1)
        self.levels = max(self.levels, level)
        self.containers += 1
        self.commas += commas
        self.need += around + 2 * commas
        self.escaped += around + 2 * commas
        if isinstance(obj, dict):
            self.keys += count
            self.need += 2 * count
            self.escaped += 2 * count
            self._todo += ((key, 1) for key in obj)
            self._todo += ((value, level + 1) for value in obj.values())
        else:
            self._todo += ((member, level + 1) for member in obj)
