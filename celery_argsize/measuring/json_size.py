"""How big is it: the size of a value as compact JSON, in characters and in UTF-8 bytes.

Pure: values in, numbers out; nothing is logged, kept or sent, and no value leaves. What the numbers are
collected for lives in ``stats``, whether Celery cut a repr in ``truncation``.

The size is that of ``json.dumps(value, ensure_ascii=False, separators=(",", ":"))``, to the character. orjson writes
the same text about ten times faster, except where it disagrees with json; the disagreements are found (see ``_doubt``)
and counted, or the slice is measured by json itself, through kombu's encoder, which also says what Celery would send
for a datetime or a UUID.
"""

from __future__ import annotations

import marshal
import re
from collections import OrderedDict
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import orjson
from kombu.utils.json import JSONEncoder as _KombuEncoder

from celery_argsize.measuring.slicing import FRAME, PARTS, SLICE, estimate, slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


#: What ``measure_json_size`` answers for a value that has no JSON form. Never a size: sizes are >= 0.
UNMEASURABLE: Final = -1

#: Characters from which on a value counts as unmeasurable. No broker takes a message as long; such a value holds one
#: container many times over, as pickle and YAML can send it, and could be without end.
MOST: Final = 512 * 1024 * 1024


class Size(NamedTuple):
    """The size of one value as compact JSON."""

    chars: int
    """Length of the text in characters (Unicode code points)."""
    bytes: int
    """Length of the same text in UTF-8."""


EMPTY: Final = (0, 0)


def measure_json_size(obj: object) -> int:
    """Characters of *obj* as compact JSON, ``len(json.dumps(obj, ensure_ascii=False, separators=(",", ":")))``.

    Values that JSON lacks are sized as kombu would send them. Never raises: what has no JSON form at all (a cycle,
    a socket, a structure nested too deep) gives ``UNMEASURABLE`` (-1).
    """
    size = measure(obj)
    return UNMEASURABLE if size is None else size.chars


def measure(obj: object) -> Size | None:
    """Size of *obj*, or ``None`` where it has no JSON form. Needs about one slice of memory, whatever the size."""
    size = measure_plain(obj)
    return size and Size(*size)


def measure_part(part: object) -> tuple[int, int] | None:
    """Size of a task's args or kwargs; an empty or absent part counts 0, and ``None`` means unmeasurable."""
    if part is None or (type(part) in PARTS and not part):
        return EMPTY
    return measure_plain(part)


def measure_plain(obj: object) -> tuple[int, int] | None:
    """As ``measure``, without names."""
    try:
        size = estimate(obj)
        return encode(obj)[0] if size <= SLICE else _measure_slices(obj, size)
    except Exception:  # noqa: BLE001 - whatever a foreign object's own code raises means: no JSON form
        return None


def measure_small(obj: object) -> tuple[int, int] | None:
    """The same in one go, of what is known to be small."""
    try:
        return encode(obj)[0]
    except Exception:  # noqa: BLE001 - as above
        return None


def _measure_slices(obj: object, estimated: int) -> tuple[int, int] | None:
    chars = size = 0
    for piece, frame, _ in slices(obj, size=estimated):
        if piece is not FRAME:
            (piece_chars, piece_bytes), _ = encode(piece)
            chars += piece_chars
            size += piece_bytes
        chars -= frame
        size -= frame
        if chars > MOST:
            return None
    return chars, size


# -- values of other types --------------------------------------------------------------------------------------

#: What the code of foreign objects may yield in one encoding: objects and members, all told.
MOST_YIELDED: Final = 100_000

#: Types that kombu writes without asking anybody else's code.
_KNOWN: Final = frozenset({bytes, datetime, date, time, Decimal, UUID})
#: How containers iterate that leave it to Python: json asks others for all that they yield, at once.
_USUAL: Final = (dict.items, OrderedDict.items, list.__iter__, tuple.__iter__)
_kombu: Final = _KombuEncoder().default


class ForeignError(Exception):
    """A foreign object yields too much, or what it should not."""


def kombu_form(obj: object) -> object:
    """What kombu writes for *obj*, of a type that JSON lacks; a set as an array, which only pickle or YAML bring.

    Raises:
        ForeignError: that is for the type's own code to say, see ``encode_exactly``.
    """
    kind = type(obj)
    if kind in _KNOWN:
        return _kombu(obj)
    if kind is set or kind is frozenset:
        return [*obj]  # type: ignore[misc]
    raise ForeignError


def encode_exactly(obj: object) -> str:
    """*obj* as compact JSON. Raises whatever encoding raises, and whatever the code of objects in it does."""
    encoder = _Encoder(ensure_ascii=False, separators=(",", ":"))
    try:
        marshal.dumps(obj)  # type: ignore[arg-type]  # a ValueError tells
    except ValueError:  # other types than JSON's are in it
        obj = encoder.tamed(obj)
    return encoder.encode(obj)


class _Encoder(_KombuEncoder):
    """kombu's encoder for one value, with sets and Enums as ``kombu_form`` has them.

    Types are looked at by ``type``: an object's ``__class__`` may lie.
    """

    _left = MOST_YIELDED

    def default(self, o: object) -> object:
        kind = type(o)
        if kind in _KNOWN:
            return super().default(o)
        self._take(1)
        if not hasattr(kind, "__json__"):
            if issubclass(kind, (set, frozenset)):
                return [*(set if issubclass(kind, set) else frozenset).__iter__(o)]  # type: ignore[arg-type]
            if issubclass(kind, Enum):
                return self.tamed(o.value)  # type: ignore[attr-defined]
        return self.tamed(super().default(o))

    def _take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ForeignError

    def tamed(self, obj: Any) -> Any:
        """*obj*, or the same with what containers yield by code of their own already taken, and bounded."""
        return self._tame(obj) if _is_wild(obj) else obj

    def _tame(self, obj: Any) -> Any:
        kind = type(obj)
        base, way = _container(kind)
        if base is None:
            return obj
        if base is dict and not dict.__len__(obj):  # then json asks for nothing
            return {}
        wild = way not in _USUAL
        members = iter(obj.items() if base is dict else obj) if wild else _members(base, obj)
        members = [*islice(members, self._left + 1 if wild else None)]
        if wild:
            self._take(len(members))
        if base is not dict:
            return [self._tame(member) for member in members]
        if not all(issubclass(type(item), tuple) for item in members):  # json takes no other pairs
            raise ForeignError
        return _Items([(key, self._tame(value)) for key, value in members])


class _Items(dict):  # type: ignore[type-arg]
    """A dict that json writes as just these items; a key may be among them twice."""

    def __init__(self, items: list[tuple[Any, Any]]) -> None:
        super().__init__(items=None)  # json asks an empty one for nothing
        self._items = items

    def items(self) -> Any:
        return self._items


def _container(kind: type) -> tuple[Any, Any]:
    """The container that *kind* is, if any, and how it iterates."""
    if issubclass(kind, dict):
        return dict, kind.items
    if issubclass(kind, (list, tuple)):
        return list if issubclass(kind, list) else tuple, kind.__iter__
    return None, None


def _members(base: Any, obj: Any) -> Iterator[Any]:
    members: Iterator[Any] = iter(dict.items(obj)) if base is dict else base.__iter__(obj)
    return members


def _is_wild(obj: Any) -> bool:
    """Whether a container in *obj* says itself what is in it."""
    todo, seen = [obj], set()
    while todo:
        found = todo.pop()
        base, way = _container(type(found))
        if base is None or id(found) in seen:
            continue
        if way not in _USUAL:
            return True
        seen.add(id(found))
        todo += dict.values(found) if base is dict else base.__iter__(found)
    return False


# -- one slice ----------------------------------------------------------------------------------------------------

#: Bytes: as numbers, they are found faster.
DASH, DOT = b"-."

_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS


def encode(obj: object, default: Callable[[Any], object] | None = kombu_form) -> tuple[tuple[int, int], bytes | None]:
    """Characters and bytes of *obj*, encoded in one go, and its JSON; that is ``None`` where json had to tell.

    Without *default*, that is also for all that JSON lacks. Raises whatever the encoding raises.
    """
    try:
        data = orjson.dumps(obj, default, _OPTIONS)
    except Exception as exc:  # noqa: BLE001 - more than orjson takes (big ints, surrogates, int keys, …): json decides
        if not isinstance(exc.__cause__ or exc, Exception):  # an interrupt that came within default
            raise exc.__cause__ from None  # type: ignore[misc]
        return _exactly(obj), None
    if type(obj) is str:  # nothing in it can be in doubt
        size = len(data)
        return (size if obj.isascii() else size - len(obj.encode()) + len(obj), size), data
    extra = 0
    # each of these is rare, and found out fast
    if (
        b"null" in data
        or (DASH in data and (b"e-" in data or _UUID.search(data)))
        or (DOT in data and b"0.0000" in data)
    ):
        doubt = _doubt(data, obj)
        if doubt is None:
            return _exactly(obj), None
        extra = doubt
    size = len(data)
    return ((size if data.isascii() else len(data.decode())) + extra, size + extra), data


#: The last group of a quoted UUID.
_UUID: Final = re.compile(rb'-[0-9a-f]{12}"')
#: The exponent of "1e-7", which json writes "1e-07": one character more.
_ONE_DIGIT: Final = re.compile(rb"e-[1-9](?:[,\]}]|$)")
#: "0.00001" and "0.000012", which json writes "1e-05" and "1.2e-05": two characters less, one character less.
_FOUR_ZEROS: Final = re.compile(rb"(?<![0-9])0\.0000([1-9][0-9]*)")
#: A float in marshal's format with an exponent of all ones: NaN or an infinity (or, rarely, bytes that look like it).
_NOT_FINITE: Final = tuple(
    (last, re.compile(rb"%b(?<=[g\xe7].{6}[\xf0-\xff]%b)" % (last, last), re.DOTALL)) for last in (b"\x7f", b"\xff")
)


def _doubt(data: bytes, obj: object) -> int | None:
    """Characters that json writes more than orjson did, or ``None`` where only encoding with json can tell.

    orjson writes NaN and the infinities as "null", a UUID as its text, and small floats its own way. Each is looked
    for in the text first, and only then in the value.
    """
    if (b"null" in data or _UUID.search(data)) and not _is_plain(obj):
        return None
    one_digit = b"e-" in data and _ONE_DIGIT.search(data)
    four_zeros = b"0.0000" in data
    if not one_digit and not four_zeros:
        return 0
    if b'"' in data:  # what looks like a number may be part of a text
        return None
    more = len(_ONE_DIGIT.findall(data))
    return more - sum(2 if len(digits) == 1 else 1 for digits in _FOUR_ZEROS.findall(data))


def _is_plain(obj: object) -> bool:
    """Whether *obj* holds only the types that marshal knows (no UUID, no Enum) and no NaN or infinity."""
    try:
        data = marshal.dumps(obj)  # type: ignore[arg-type]  # a ValueError tells
    except ValueError:
        return False
    return not any(last in data and pattern.search(data) for last, pattern in _NOT_FINITE)


def _exactly(obj: object) -> tuple[int, int]:
    """Size by json and kombu's encoder: slower, and the definition of right."""
    text = encode_exactly(obj)
    return len(text), len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
