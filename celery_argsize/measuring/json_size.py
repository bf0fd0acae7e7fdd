"""The size of a value as compact JSON, in characters and in UTF-8 bytes.

Exactly that of ``json.dumps(value, ensure_ascii=False, separators=(",", ":"))``.
orjson writes this text about ten times faster. Where the two may differ, the
difference is counted (``_json_longer_by``), or json measures the piece. What JSON
lacks, such as a datetime or a UUID, has the form that kombu's encoder sends.
"""

from __future__ import annotations

import json
import marshal
import re
from collections import OrderedDict
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import orjson
from kombu.utils.json import JSONEncoder

from celery_argsize.measuring.slicing import FRAME, PARTS, SLICE, estimate, slices

if TYPE_CHECKING:
    from collections.abc import Callable

#: What ``measure_json_size`` gives for a value that has no JSON form.
UNMEASURABLE: Final = -1

#: A value with more characters counts as unmeasurable: no broker
#: takes such a message. Pickle and YAML can make one of a small
#: message that repeats a container.
MAX_CHARS: Final = 512 * 1024 * 1024


class Size(NamedTuple):
    """The size of one value as compact JSON."""

    chars: int
    """Length of the text in characters (Unicode code points)."""
    bytes: int
    """Length of the text in UTF-8."""


EMPTY: Final = (0, 0)


def measure_json_size(obj: object) -> int:
    """Characters of *obj* as compact JSON, ``len(json.dumps(obj, ensure_ascii=False, separators=(",", ":")))``.

    What JSON lacks is sized as kombu would send it. Never raises: a value
    that has no JSON form at all (a cycle, a socket, a structure nested too
    deep) gives ``UNMEASURABLE`` (-1).
    """
    size = measure(obj)
    return UNMEASURABLE if size is None else size.chars


def measure(obj: object) -> Size | None:
    """Size of *obj*; ``None`` if it has no JSON form. Needs memory for one slice only."""
    try:
        guess = estimate(obj)
        return Size(*encode(obj)[0]) if guess <= SLICE else _measure_slices(obj, guess)
    except Exception:  # noqa: BLE001 - objects' own code may raise anything
        return None


def measure_part(part: object) -> tuple[int, int] | None:
    """Characters and bytes of a task's args or kwargs: 0 if empty or absent, ``None`` if they have no JSON form."""
    if part is None or (type(part) in PARTS and not part):
        return EMPTY
    size = measure(part)
    return size and (size.chars, size.bytes)


def measure_small(obj: object) -> tuple[int, int] | None:
    """``measure`` for a small *obj*, as a plain tuple."""
    try:
        return encode(obj)[0]
    except Exception:  # noqa: BLE001 - objects' own code may raise anything
        return None


def _measure_slices(obj: object, guess: int) -> Size | None:
    chars = size = 0
    for piece, frame, _ in slices(obj, size=guess):
        if piece is not FRAME:
            (piece_chars, piece_bytes), _ = encode(piece)
            chars += piece_chars
            size += piece_bytes
        chars -= frame
        size -= frame
        if chars > MAX_CHARS:
            return None
    return Size(chars, size)


# -- by orjson

#: Ints, as ``45 in data`` is faster than ``b"-" in data``.
DASH, DOT = b"-."

_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS

#: The last group of a quoted UUID.
_UUID: Final = re.compile(rb'-[0-9a-f]{12}"')
#: The exponent of "1e-7", which json writes "1e-07": one character more.
_ONE_DIGIT: Final = re.compile(rb"e-[1-9](?:[,\]}]|$)")
#: "0.00001" and "0.000012", which json writes "1e-05" and "1.2e-05":
#: 2 characters and 1 character less.
_FOUR_ZEROS: Final = re.compile(rb"(?<![0-9])0\.0000([1-9][0-9]*)")
#: A float in marshal's format with an exponent of all ones: NaN or an infinity
#: (rarely, bytes that look like one).
_NOT_FINITE: Final = tuple(
    (last, re.compile(rb"%b(?<=[g\xe7].{6}[\xf0-\xff]%b)" % (last, last), re.DOTALL)) for last in (b"\x7f", b"\xff")
)


def kombu_form(obj: object) -> object:
    """What kombu sends for *obj*, which orjson cannot write: a set, or one of ``_KOMBU_TYPES``.

    Raises:
        ForeignError: another type, whose own code decides; json then measures it.
    """
    kind = type(obj)
    if kind in _KOMBU_TYPES:
        return _kombu.default(obj)
    if kind is set or kind is frozenset:
        return [*obj]  # type: ignore[misc]
    raise ForeignError


def encode(obj: object, default: Callable[[Any], object] | None = kombu_form) -> tuple[tuple[int, int], bytes | None]:
    """``((characters, bytes), JSON)`` of *obj*. The JSON is ``None`` where json had to measure it.

    *default* gives orjson the form of what JSON lacks; ``None``: json measures it. Raises what encoding raises.
    """
    try:
        data = orjson.dumps(obj, default, _OPTIONS)
    except Exception as exc:  # noqa: BLE001 - orjson takes no big ints, surrogates, int keys, …
        if not isinstance(exc.__cause__ or exc, Exception):  # an interrupt within *default*
            raise exc.__cause__ from None  # type: ignore[misc]
        return _measure_exactly(obj), None
    if type(obj) is str:  # both write the same
        size = len(data)
        return (size if obj.isascii() else size - len(obj.encode()) + len(obj), size), data
    more = 0
    # Each of these is rare and quickly found.
    if (
        b"null" in data
        or (DASH in data and (b"e-" in data or _UUID.search(data)))
        or (DOT in data and b"0.0000" in data)
    ):
        longer_by = _json_longer_by(data, obj)
        if longer_by is None:
            return _measure_exactly(obj), None
        more = longer_by
    size = len(data)
    return ((size if data.isascii() else len(data.decode())) + more, size + more), data


def _json_longer_by(data: bytes, obj: object) -> int | None:
    """Characters that json writes more than orjson did; ``None`` where only json can tell.

    orjson writes NaN and the infinities as "null", a UUID as its
    text, and small floats its own way.
    """
    if (b"null" in data or _UUID.search(data)) and not _is_plain(obj):
        return None
    one_digit = b"e-" in data and _ONE_DIGIT.search(data)
    if not one_digit and b"0.0000" not in data:
        return 0
    if b'"' in data:  # what looks like a number may be part of a text
        return None
    more = len(_ONE_DIGIT.findall(data))
    return more - sum(2 if len(digits) == 1 else 1 for digits in _FOUR_ZEROS.findall(data))


def _is_plain(obj: object) -> bool:
    """Whether *obj* holds only types that marshal knows (no UUID, no Enum), and no NaN or infinity."""
    try:
        data = marshal.dumps(obj)  # type: ignore[arg-type]  # a ValueError tells
    except ValueError:
        return False
    return not any(last in data and pattern.search(data) for last, pattern in _NOT_FINITE)


# -- by json: slower, but right by definition

#: Most objects and members that objects' own code may yield in one encoding.
MAX_YIELDED: Final = 100_000

#: Types that kombu writes without running their code.
_KOMBU_TYPES: Final = frozenset({bytes, datetime, date, time, Decimal, UUID})
#: Methods of containers that iterate without foreign code.
_BUILT_IN: Final = (dict.items, OrderedDict.items, list.__iter__, tuple.__iter__)
_kombu: Final = JSONEncoder()
_dumps: Final = partial(json.dumps, ensure_ascii=False, separators=(",", ":"))


class ForeignError(Exception):
    """An object's own code decides its form, or yields too much or wrong types."""


def _measure_exactly(obj: object) -> tuple[int, int]:
    """Characters and bytes of *obj*. Raises what encoding or an object's own code raises."""
    try:
        marshal.dumps(obj)  # type: ignore[arg-type]  # ValueError: it may have code of its own
        text = _dumps(obj)
    except (ValueError, TypeError):
        text = _dumps(_Converter().convert(obj))
    return len(text), len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class _Converter:
    """Converts a value to JSON's types, as kombu does. A set becomes a list, an Enum its value.

    json alone would never end on a container whose own code yields without end.
    """

    def __init__(self) -> None:
        self._budget = MAX_YIELDED

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
        return _Items([(key, self.convert(value)) for key, value in items])

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


class _Items(dict):  # type: ignore[type-arg]
    """A dict that json writes as just these items; a key may be among them twice."""

    def __init__(self, items: list[tuple[Any, Any]]) -> None:
        super().__init__(items=None)  # not empty
        self._items = items

    def items(self) -> Any:
        return self._items
