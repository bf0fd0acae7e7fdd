"""The pure-Python twin of ``_compiled``, for machines without a compiler or a wheel, and for free-threaded builds.

A small value is walked through. A large one goes to json's own C encoder, and the
counts are taken from its text: about twice the time of ``json.dumps``, and the
memory of the text, its UTF-8, and a marshaled copy.
"""

from __future__ import annotations

import marshal
import math
import re
from itertools import islice
from json import JSONEncoder
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Deeper values have no size: json cannot write them either.
MAX_LEVELS: Final = 1000
#: Nor have values with more characters: no broker takes such a message. Pickle and
#: YAML can make one of a small message that repeats a container.
MAX_CHARS: Final = 512 * 1024 * 1024
#: Members that are walked through before json's encoder is tried.
SMALL: Final = 300

_LEAST, _MOST = -(2**63), 2**63 - 1
_CONTAINERS: Final = frozenset({list, tuple, dict})
#: Writes compact JSON.
encode: Final = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class _GivenUpError(Exception):
    """The value is too deep or too large."""


#: Other errors tell that a value is deep or large, too, or that another thread changed it.
_NO_SIZE: Final = (_GivenUpError, RecursionError, MemoryError, RuntimeError)


class _LargeError(Exception):
    """The value has many members."""


def walk(value: Any, aside: list[Any]) -> tuple[int, ...] | None:
    """The figures of *value*, in the order of ``walk.Figures``; ``None`` if it is too deep or too large.

    Leaves other than str, int, float, bool and None are not counted but put into *aside*, each followed by its level. A
    key has level 0. For a large value, ``need`` and ``escaped`` are bounds: never under, at most 10 % over.
    """
    try:
        return _Walk(aside, SMALL).figures(value)
    except _LargeError:
        aside.clear()
    except _NO_SIZE:
        return None
    try:
        figures = _from_text(value) if _guess(value) <= MAX_CHARS else None
        return figures or _Walk(aside, math.inf).figures(value)
    except _NO_SIZE:
        return None


class _Walk:
    def __init__(self, aside: list[Any], most: float) -> None:
        self._aside = aside
        self._left = most
        #: Characters that JSON and repr have in common, and what each has more.
        self._plain = self._json = self._utf8 = self._repr = self._escaped = 0
        self._commas = self._keys = self._singles = self._levels = 0
        self._heights: list[int] = []

    def figures(self, value: Any) -> tuple[int, ...]:
        rest: list[Any] = []
        self._plain, self._json = _simple((value,), 0, rest)
        self._add(rest, 1)
        plain, chars = self._plain, self._plain + self._json
        if chars > MAX_CHARS:
            raise _GivenUpError
        return (
            chars,
            chars + self._utf8,
            plain + self._repr,
            plain + self._escaped,
            self._levels,
            self._commas,
            self._keys,
            sum(self._heights),
            chain_steps(self._heights),
            self._singles,
        )

    def _add(self, rest: list[Any], level: int) -> int:
        """Add members that are not simple, or such keys (*level* 0). Their greatest height; 0: no container."""
        height = 0
        for member in rest:
            kind = type(member)
            if kind is str:
                self._add_text(member)
            elif kind in _CONTAINERS and level:
                height = max(height, self._add_container(member, kind, level))
            else:
                self._aside += (member, level)
            if self._plain > MAX_CHARS:
                raise _GivenUpError
        return height

    def _add_container(self, value: Any, kind: type, level: int) -> int:
        """Its height: 1 if it holds no container, 2 if it holds these, and so on."""
        self._left -= len(value)
        if self._left < 0:
            raise _LargeError
        if level > MAX_LEVELS:
            raise _GivenUpError
        plain, more, count, keys, rest = shallow(value, kind)
        self._plain += plain
        self._json += more
        self._levels = max(self._levels, level)
        self._commas += count - 1 if count else 0
        if kind is dict:
            self._keys += count
        elif count == 1 and kind is list:
            self._singles += 1
        self._add(keys, 0)
        height = self._add(rest, level + 1)
        if height == len(self._heights):
            self._heights.append(0)
        self._heights[height] += 1
        return height + 1

    def _add_text(self, text: str) -> None:
        """Add a text with special characters."""
        size, apostrophes = len(text), text.count("'")  # saferepr escapes only apostrophes
        self._plain += size + 2
        self._json += len(encode_basestring(text)) - 2 - size
        self._utf8 += 0 if text.isascii() else len(text.encode("utf-8", "surrogatepass")) - size
        self._repr += apostrophes
        self._escaped += len(encode_basestring_ascii(text)) - 2 - size + 2 * apostrophes


def shallow(value: Any, kind: type) -> tuple[int, int, int, list[Any], list[Any]]:
    """A container without what is in its members that are not simple.

    Its characters in a repr, what JSON has more, the number of its members, and its keys and members that are not
    simple.
    """
    keys: list[Any] = []
    rest: list[Any] = []
    if kind is dict:
        items = [*value.items()]  # another thread may change it meanwhile
        count = len(items)
        plain, more = _simple([key for key, _ in items], 2, keys)
        plain_members, more_in_members = _simple([member for _, member in items], 0, rest)
        plain += plain_members + 2 * count  # colons, followed by a blank in a repr
        more += more_in_members - count
    else:
        members = [*value]
        count = len(members)
        plain, more = _simple(members, 0, rest)
        if count == 1 and kind is tuple:
            plain += 1  # (1,)
            more -= 1
    commas = count - 1 if count else 0
    return plain + 2 + 2 * commas, more - commas, count, keys, rest


def _simple(members: Iterable[Any], quotes: int, rest: list[Any]) -> tuple[int, int]:
    """Characters of members in a repr, and what JSON has more. *quotes*: 2 for keys, which it writes as texts.

    Texts with special characters, containers, and other leaves go into *rest*.
    """
    plain = more = 0
    for member in members:
        kind = type(member)
        if kind is str:
            if (
                member.isascii()
                and member.isprintable()
                and "'" not in member
                and '"' not in member
                and "\\" not in member
            ):
                plain += len(member) + 2
            else:
                rest.append(member)
        elif kind is int and _LEAST <= member <= _MOST:
            plain += len(str(member))
            more += quotes
        elif member is None or kind is bool:
            plain += 5 if member is False else 4
            more += quotes
        elif kind is float:
            text = repr(member)
            plain += len(text)
            more += quotes + (5 if text.endswith("inf") else 0)  # Infinity
        else:
            rest.append(member)
    return plain, more


def chain_steps(heights: list[int]) -> int:
    """``Shape.chain_steps`` of as many containers of each height, as if evenly spread."""
    steps, below = 0.0, 0
    for count, holders in zip(heights, [*heights[1:], 1], strict=False):
        below += count
        steps += count / holders * below
    return min(round(steps), 1 << 40)  # sums stay within 64 bits


# -- counted in the JSON

_PUNCTUATION: Final = b',:[]{}"'
_OTHERS: Final = bytes(set(range(256)) - set(_PUNCTUATION))
_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_NOT_ASCII: Final = bytes(range(0x80, 0x100))
#: All but the first UTF-8 bytes of characters beyond the basic plane.
_NOT_BEYOND: Final = bytes(set(range(256)) - set(range(0xF0, 0xF5)))
#: A tuple of one, as marshal writes it. JSON does not tell it from a list.
_TUPLE_OF_ONE: Final = b"(\1\0\0\0"
_LIST_OF_ONE: Final = b"[\1\0\0\0"
#: A key that may have been a number. A repr shows it without quotes. The pattern begins with a quote to be fast.
_NUMBER_KEY: Final = re.compile(rb'"(?:[-0-9][0-9.e+-]*|true|false|null|NaN)":')
#: Share of the need that such keys may make it too high.
_SLACK: Final = 0.08


def _guess(value: Any, depth: int = 8) -> int:
    """Characters of *value*, if its first members are like the others: the text of a value may be too large to make."""
    kind = type(value)
    if kind is str:
        return len(value)
    if kind not in _CONTAINERS or not value or not depth:
        return 8
    first = islice(value.values() if kind is dict else value, 3)
    return len(value) * max(_guess(member, depth - 1) for member in first)


def _from_text(value: Any) -> tuple[int, ...] | None:
    """The figures of a large *value*, from its JSON; ``None`` if that does not tell them."""
    try:
        text = encode(value)  # first, as marshal does not see a value that holds itself
        data = marshal.dumps(value, 2)  # ValueError: other types
        ones, lists = data.count(_TUPLE_OF_ONE), data.count(_LIST_OF_ONE)
    except (ValueError, TypeError):
        return None
    chars = len(text)
    if chars > MAX_CHARS:
        raise _GivenUpError
    data = text.encode("utf-8", "surrogatepass")
    if b"Infinity" in data or ((ones or lists) and b"\\u0001" in data):
        return None
    apostrophes, rest, sequences, codes = data.count(b"'"), data, 0, 0
    if b"\\" in data:
        rest = data.replace(b"\\\\", b"")
        pairs = (len(data) - len(rest)) // 2
        sequences = pairs + rest.count(b"\\")
        codes = rest.count(b"\\u")  # six characters for one
        rest = rest.replace(b'\\"', b"")
    numbers = 2 * len(_NUMBER_KEY.findall(rest)) if b'":' in rest else 0
    marks = rest.translate(None, _OTHERS).replace(b'""', b"")
    marks = b"".join(marks.split(b'"')[::2])
    commas, keys = marks.count(b","), marks.count(b":")
    heights, brackets = [], marks.translate(_BRACKETS, b",:")
    while brackets:  # the innermost containers first
        rest = brackets.replace(b"[]", b"")
        heights.append((len(brackets) - len(rest)) // 2)
        brackets = rest
    if len(heights) > MAX_LEVELS:
        raise _GivenUpError
    need = chars + commas + keys + apostrophes - sequences - 4 * codes + ones
    if numbers > _SLACK * need:
        return None
    escaped = need + sequences + 4 * codes + apostrophes + _escapes(chars, data)
    return (
        chars,
        len(data),
        need,
        escaped,
        len(heights),
        commas,
        keys,
        sum(heights),
        chain_steps(heights),
        lists,
    )


def _escapes(chars: int, data: bytes) -> int:
    """Characters that ASCII JSON adds: an escape has six, beyond the basic plane twelve; also for DEL."""
    more = 5 * data.count(b"\x7f")
    if len(data) == chars:
        return more
    beyond = len(data.translate(None, _NOT_BEYOND))
    return more + 5 * (chars - len(data.translate(None, _NOT_ASCII))) + 6 * beyond
