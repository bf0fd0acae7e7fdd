"""How big is it: the size of a value as compact JSON, in characters and in UTF-8 bytes.

Pure: values in, numbers out; nothing is logged, kept or sent, and no value leaves. What the numbers are
collected for lives in ``stats``, whether Celery cut a repr in ``truncation``.

The size is that of ``json.dumps(value, ensure_ascii=False, separators=(",", ":"))``, to the character. orjson writes
the same text about ten times faster, except where it disagrees with json; the disagreements are found (see ``_doubt``)
and counted, or the slice is measured by json itself, through kombu's encoder, which also says what Celery would send
for a datetime or a UUID.
"""

from __future__ import annotations

import codecs
import json
import marshal
import re
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kombu.utils.json import JSONEncoder as _KombuEncoder

try:
    import orjson
except ImportError:  # PyPy has no orjson: everything is measured by json, slower and to the same character
    orjson = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EMPTY", "UNMEASURABLE", "Size", "measure", "measure_json_size", "measure_part"]

#: What ``measure_json_size`` answers for a value that has no JSON form. Never a size: sizes are >= 0.
UNMEASURABLE: Final = -1

#: Characters (strings) or estimated bytes (containers) above which a value is encoded piece by piece.
SLICE: Final = 128 * 1024

#: Members encoded at once, at most: orjson sets aside 256 bytes for each.
SLICE_MEMBERS: Final = 2048

#: Characters of a long string that are encoded at once: orjson sets aside 8 times the UTF-8 length of a string.
STRING_SLICE: Final = 32 * 1024

#: Levels down to which containers are cut up. Deeper ones, and cycles, are left to the encoder, which ends them.
SLICE_DEPTH: Final = 16

#: Containers of up to this many members may be mixed: each text in them is looked at, each member cut up if need be.
SAMPLE: Final = 16


class Size(NamedTuple):
    """The size of one value as compact JSON."""

    chars: int
    """Length of the text in characters (Unicode code points)."""
    bytes: int
    """Length of the same text in UTF-8."""


EMPTY: Final = Size(0, 0)

_PARTS: Final = (list, tuple, dict)


def measure_json_size(obj: object) -> int:
    """Characters of *obj* as compact JSON, ``len(json.dumps(obj, ensure_ascii=False, separators=(",", ":")))``.

    Values that JSON lacks are sized as kombu would send them. Never raises: what has no JSON form at all (a cycle,
    a socket, a structure nested too deep) gives ``UNMEASURABLE`` (-1).
    """
    size = measure(obj)
    return UNMEASURABLE if size is None else size.chars


def measure_part(part: object) -> Size | None:
    """Size of a task's args or kwargs; an empty or absent part counts 0, and ``None`` means unmeasurable."""
    if part is None or (type(part) in _PARTS and not part):
        return EMPTY
    return measure(part)


def measure(obj: object) -> Size | None:
    """Size of *obj*, or ``None`` where it has no JSON form. Needs about one slice of memory, whatever the size."""
    try:
        if _estimate(obj, SLICE_DEPTH) <= SLICE:
            return _encode(obj)
        chars = size = 0
        for piece_chars, piece_bytes in _pieces(obj, SLICE_DEPTH):
            chars += piece_chars
            size += piece_bytes
    except Exception:  # noqa: BLE001 - whatever a foreign object's own code raises means: no JSON form
        return None
    return Size(chars, size)


# -- cutting up ---------------------------------------------------------------------------------------------------


def _estimate(obj: Any, depth: int) -> int:
    """Roughly how many bytes *obj* encodes to, from its members; cheap, and only used to choose slices.

    Of up to ``SAMPLE`` members each text counts with its length (an id beside a blob); the containers among them, and
    the members of longer containers, are mostly alike, so that the first and last stand for all. A guess too low costs
    memory for that value, never a wrong size.
    """
    kind = type(obj)
    if kind is str or kind is bytes:
        return len(obj)
    if kind is dict:
        members = obj.values()
    elif kind is list or kind is tuple:
        members = obj
    else:
        return 8
    count = len(obj)
    if not count or not depth:
        return 8 * count
    if count > SAMPLE:
        members = [*islice(members, 2)] if kind is dict else (obj[0], obj[-1])
    total = 8 * len(members)
    containers, first, last = 0, None, None
    for member in members:
        kind = type(member)
        if kind is str or kind is bytes:
            total += len(member)
        elif kind is list or kind is dict or kind is tuple:
            containers += 1
            first, last = first or member, member
    if containers:
        total += (_estimate(first, depth - 1) + _estimate(last, depth - 1)) * containers // 2
    return total * count // len(members)


def _pieces(obj: Any, depth: int) -> Iterator[tuple[int, int]]:
    """Sizes that add up to the size of *obj*, none encoded from much more than a slice."""
    kind = type(obj)
    if kind is str and len(obj) > SLICE:
        yield 2, 2
        for start in range(0, len(obj), STRING_SLICE):
            chars, size = _encode(obj[start : start + STRING_SLICE])
            yield chars - 2, size - 2
    elif kind is bytes and len(obj) > SLICE:
        yield from _bytes_pieces(obj)
    elif not depth or kind not in (list, tuple, dict) or _estimate(obj, depth) <= SLICE:
        yield _encode(obj)
    elif kind is dict:
        yield from _dict_pieces(obj, depth)
    else:
        yield from _list_pieces(obj, depth)


def _bytes_pieces(obj: bytes) -> Iterator[tuple[int, int]]:
    """Sizes of what kombu sends for bytes: the text they hold in UTF-8, else base64, in an envelope."""
    view, decoder = memoryview(obj), codecs.getincrementaldecoder("utf-8")()
    envelope = _encode_exactly(b"").chars
    pieces = []
    try:
        for start in range(0, len(obj), STRING_SLICE):
            end = start + STRING_SLICE
            chars, size = _encode(decoder.decode(view[start:end], final=end >= len(obj)))
            pieces.append((chars - 2, size - 2))
    except UnicodeDecodeError:
        coded = _encode_exactly(b"\xff").chars - 4 + (len(obj) + 2) // 3 * 4
        yield coded, coded
    else:
        yield envelope, envelope
        yield from pieces


def _list_pieces(obj: Any, depth: int) -> Iterator[tuple[int, int]]:
    """A list is "[", its items with "," between them, and "]"."""
    step = _members_a_slice(obj, depth)
    yield 1 + len(obj), 1 + len(obj)
    for start in range(0, len(obj), step):
        chunk = obj[start : start + step]
        if step == 1:
            yield from _pieces(chunk[0], depth - 1)
        else:
            chars, size = _encode(chunk)
            yield chars - len(chunk) - 1, size - len(chunk) - 1


def _dict_pieces(obj: dict[Any, Any], depth: int) -> Iterator[tuple[int, int]]:
    """A dict is "{", its "key:value" items with "," between them, and "}"."""
    step = _members_a_slice(obj, depth)
    yield 1 + len(obj), 1 + len(obj)
    items = iter(obj.items())
    while chunk := dict(islice(items, step)):
        if step == 1:
            ((key, value),) = chunk.items()
            chars, size = _encode({key: 0})  # "{" + key + ":0}"
            yield chars - 3, size - 3
            yield from _pieces(value, depth - 1)
        else:
            chars, size = _encode(chunk)
            yield chars - len(chunk) - 1, size - len(chunk) - 1


def _members_a_slice(obj: Any, depth: int) -> int:
    """How many members to encode at once; 1 (each member cut up in turn) where single members can be big."""
    if len(obj) <= SAMPLE:
        return 1
    return max(1, min(SLICE_MEMBERS, SLICE * len(obj) // _estimate(obj, depth)))


# -- one slice ----------------------------------------------------------------------------------------------------

_EXACT: Final = {"ensure_ascii": False, "separators": (",", ":")}


class _Encoder(_KombuEncoder):
    """kombu's encoder, plus the two kinds that only pickle or yaml bring: a set as an array, an Enum as its value."""

    def default(self, o: object) -> object:
        if isinstance(o, (set, frozenset)):
            return list(o)
        if isinstance(o, Enum):
            return o.value
        return super().default(o)


_default: Final = _Encoder().default

if orjson is not None:
    _OPTIONS: Final = (
        orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
    )

    def _encode(obj: object) -> Size:
        """Size of *obj*, encoded in one go. Raises whatever its encoding raises."""
        try:
            data = orjson.dumps(obj, _default, _OPTIONS)
        except Exception:  # noqa: BLE001 - more than orjson takes (big ints, surrogates, int keys, …): json decides
            return _encode_exactly(obj)
        extra = 0 if type(obj) is str else _doubt(data, obj)
        if extra is None:
            return _encode_exactly(obj)
        size = len(data)
        return Size((size if data.isascii() else len(data.decode())) + extra, size + extra)


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
    for in the text first (a lone byte with ``in`` and a word with ``rfind`` are CPython's fastest searches), and only
    then in the value.
    """
    dash = b"-" in data
    if (data.rfind(b"null") >= 0 or (dash and _UUID.search(data))) and not _is_plain(obj):
        return None
    one_digit = dash and _ONE_DIGIT.search(data)
    four_zeros = b"." in data and data.rfind(b"0.0000") >= 0
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


def _encode_exactly(obj: object) -> Size:
    """Size by json and kombu's encoder: slower, and the definition of right."""
    text = json.dumps(obj, cls=_Encoder, **_EXACT)  # type: ignore[arg-type]
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return Size(len(text), size)


if orjson is None:
    _encode = _encode_exactly  # type: ignore[unreachable, unused-ignore]
