"""What the walk set aside: leaves that are no exact built-in JSON types, such as a datetime, an Enum or a set.

Their size is that of the form which kombu's encoder sends. Their own code may lie,
raise, or never end.
"""

from __future__ import annotations

import codecs
from collections import OrderedDict
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from itertools import islice
from json.encoder import encode_basestring_ascii
from numbers import Number
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from kombu.utils.json import JSONEncoder

from celery_argsize.measuring.pure import encode
from celery_argsize.measuring.walk import Figures, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Most objects and members that objects' own code may yield in one value.
MAX_YIELDED: Final = 100_000

#: Bytes that are decoded at once.
_SLICE: Final = 16 * 1024

#: Types that kombu writes without running their code.
_KOMBU_TYPES: Final = frozenset({bytes, datetime, date, time, Decimal, UUID})
#: Methods of containers that iterate without foreign code.
_BUILT_IN: Final = (dict.items, OrderedDict.items, list.__iter__, tuple.__iter__)
_BASES: Final = (dict, list, tuple, set, frozenset)
_kombu: Final = JSONEncoder()


class ForeignError(Exception):
    """An object's own code yields too much or wrong types."""


def pairs(aside: list[Any]) -> Iterator[tuple[Any, int]]:
    """The leaves in *aside*, each with its level; 0 is that of a key."""
    entries = iter(aside)
    return zip(entries, entries, strict=True)


# -- in JSON


def json_size(aside: list[Any]) -> tuple[int, int]:
    """Characters and bytes of all leaves in *aside*. Raises what their own code raises."""
    converter, chars, size = _Converter(), 0, 0
    for leaf, level in pairs(aside):
        more_chars, more_bytes = converter.size(leaf) if level else _size({leaf: 0}, 4)
        chars += more_chars
        size += more_bytes
    return chars, size


def _size(value: Any, frame: int = 0) -> tuple[int, int]:
    """Characters and bytes of *value*, less *frame*."""
    text = encode(value)
    chars = len(text) - frame
    return chars, chars if text.isascii() else len(text.encode("utf-8", "surrogatepass")) - frame


#: What kombu writes as the value of an object of a usual type, and the characters around it.
_TEXTS: Final[dict[type, tuple[Callable[[Any], str], int]]] = {}


def _prepare(text: Callable[[Any], str], sample: Any) -> None:
    form = encode(_kombu.default(sample))
    if text(sample) in form:
        _TEXTS[type(sample)] = text, len(form) - len(text(sample))


_prepare(datetime.isoformat, datetime(2000, 1, 1))  # noqa: DTZ001 - naive ones too
_prepare(date.isoformat, date(2000, 1, 1))
_prepare(time.isoformat, time(12))
_prepare(str, Decimal(1))
_prepare(attrgetter("hex"), UUID(int=1))


def _usual_size(leaf: Any) -> int | None:
    """Characters, and bytes, of a leaf of a usual type as kombu sends it; ``None`` for other types."""
    text, around = _TEXTS.get(type(leaf), (None, 0))
    return None if text is None else len(text(leaf)) + around


def usual_sizes(*asides: list[Any]) -> tuple[int, ...] | None:
    """For each aside: its number of leaves, their characters as JSON, and those of their reprs.

    ``None`` if some are unusual, or take more in bytes or in ASCII JSON.
    """
    sizes: list[int] = []
    for aside in asides:
        chars = need = 0
        for leaf, level in pairs(aside):
            try:
                size, text = _usual_size(leaf), repr(leaf)
            except Exception:  # noqa: BLE001 - a time zone's own code may raise anything
                return None
            if size is None or not level or not text.isascii() or '"' in text or "\\" in text:
                return None
            chars += size
            need += len(text)
        sizes += (len(aside) // 2, chars, need)
    return (*sizes,)


class _Converter:
    """Converts values to JSON's types, as kombu does. A set becomes a list, an Enum its value.

    json alone would never end on a container whose own code yields without end.
    """

    def __init__(self) -> None:
        self._budget = MAX_YIELDED

    def size(self, leaf: Any) -> tuple[int, int]:
        if type(leaf) is bytes:
            return _size_of_bytes(leaf)
        size = _usual_size(leaf)
        return _size(self.convert(leaf)) if size is None else (size, size)

    def convert(self, obj: Any) -> Any:
        kind = type(obj)  # an object's __class__ may lie
        if issubclass(kind, dict):
            return self._dict(obj, kind.items)
        if issubclass(kind, (list, tuple)):
            return [self.convert(member) for member in self._yielded(obj, kind.__iter__)]
        if obj is None or issubclass(kind, (str, int, float)):
            return obj
        if kind not in _KOMBU_TYPES:
            self._spend(1)
        if not hasattr(kind, "__json__"):
            for base in (set, frozenset):
                if issubclass(kind, base):
                    return [self.convert(member) for member in base.__iter__(obj)]
            if issubclass(kind, Enum):
                return self.convert(obj.value)
        return self.convert(_kombu.default(obj))

    def _dict(self, obj: Any, method: Any) -> Any:
        items = self._yielded(obj, method) if dict.__len__(obj) else ()  # json calls no items() of an empty dict
        if not all(issubclass(type(item), tuple) for item in items):  # nor does json take others
            raise ForeignError
        converted = {key: self.convert(value) for key, value in items}
        if len(converted) < len(items):  # json would write a key twice
            raise ForeignError
        return converted

    def _yielded(self, obj: Any, method: Any) -> Any:
        """What *obj* yields by *method*. If that is foreign code, only a bounded number."""
        if method in _BUILT_IN:
            return method(obj)
        members = [*islice(obj.items() if issubclass(type(obj), dict) else obj, self._budget + 1)]
        self._spend(len(members))
        return members

    def _spend(self, count: int) -> None:
        self._budget -= count
        if self._budget < 0:
            raise ForeignError


def _size_of_bytes(data: bytes) -> tuple[int, int]:
    """Of bytes, which kombu sends as their text or, if they are not UTF-8, as base64, both in an envelope.

    Copies only a slice at once.
    """
    decoder, view = codecs.getincrementaldecoder("utf-8")(), memoryview(data)
    chars = size = _size(_kombu.default(b""))[0]
    try:
        for start in range(0, len(data) + 1, _SLICE):
            text = decoder.decode(view[start : start + _SLICE], final=start + _SLICE > len(data))
            more_chars, more_bytes = _size(text, 2)
            chars += more_chars
            size += more_bytes
    except UnicodeDecodeError:
        of_one_byte, _ = _size(_kombu.default(b"\xff"))
        chars = size = of_one_byte - 4 + (len(data) + 2) // 3 * 4
    return chars, size


# -- in a repr


def add_reprs(figures: Figures, aside: list[Any]) -> Figures:
    """*figures* with the reprs of the leaves in *aside*. Raises what their own code raises."""
    for leaf, level in pairs(aside):
        figures = _add_repr(figures, leaf, level)
    return figures


def _add_repr(figures: Figures, leaf: Any, level: int) -> Figures:
    kind = type(leaf)  # an object's __class__ may lie
    if issubclass(kind, _BASES):
        return _add_container(figures, leaf, level)
    if issubclass(kind, str):
        quotes = str.count(leaf, "'")
        need, escaped = len(leaf) + 2 + quotes, len(encode_basestring_ascii(leaf)) + 2 * quotes
    elif issubclass(kind, bytes):
        try:
            shown = max(len(leaf), len(leaf.decode()))  # saferepr compares the limit with the bytes
        except UnicodeDecodeError:
            shown = 2 * len(leaf)
        need, escaped = shown + 3, 6 * shown + 3
    else:
        text = str(leaf) if issubclass(kind, Number) and not issubclass(kind, Decimal) else repr(leaf)
        need, escaped = len(text), len(encode_basestring_ascii(text)) - 2
    return figures._replace(need=figures.need + need, escaped=figures.escaped + escaped)


def _add_container(figures: Figures, leaf: Any, level: int) -> Figures:
    """Add a set, or an object of a subclass. Its own methods may never end."""
    kind = type(leaf)
    base: Any = next(base for base in _BASES if issubclass(kind, base))
    count = base.__len__(leaf)
    members: list[Any] = [*(dict.values(leaf) if base is dict else base.__iter__(leaf))]
    more = 0
    if base is dict:
        more = 2 * count
        for key in dict.__iter__(leaf):
            figures = _add_value(figures, key, 0)
    elif base is tuple:
        more = int(count == 1)
    elif base is not list and (kind is not set or not count):
        more = len(kind.__name__) + 2  # frozenset({1}), set()
    figures = _add_value(figures, members, level)
    return figures._replace(
        need=figures.need + more,
        escaped=figures.escaped + more,
        keys=figures.keys + (count if base is dict else 0),
        singles=figures.singles - (count == 1 and base is not list),
    )


def _add_value(figures: Figures, value: Any, level: int) -> Figures:
    """Add *value*, whose containers begin at *level*."""
    aside: list[Any] = []
    found = walk(value, aside)
    if found is None:
        raise ForeignError
    inner = Figures(*found)
    added = Figures(*map(sum, zip(figures, inner, strict=True)))._replace(
        levels=max(figures.levels, level + inner.levels - 1 if inner.levels else 0),
        # each container is a step further from the ones opened before
        chain_steps=figures.chain_steps + inner.chain_steps + figures.containers * inner.containers,
    )
    return add_reprs(added, [entry if at % 2 == 0 else entry and entry + level - 1 for at, entry in enumerate(aside)])
