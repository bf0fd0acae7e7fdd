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
import marshal
import re
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_argsize.foreign import encode_exactly, kombu_form

try:
    import orjson
except ImportError:  # PyPy has no orjson: everything is measured by json, slower and to the same character
    orjson = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "EMPTY",
    "FRAME",
    "MOST",
    "UNMEASURABLE",
    "Size",
    "encode",
    "measure",
    "measure_json_size",
    "measure_part",
    "slices",
]

#: What ``measure_json_size`` answers for a value that has no JSON form. Never a size: sizes are >= 0.
UNMEASURABLE: Final = -1

#: Characters (strings) or estimated bytes (containers) above which a value is encoded piece by piece.
SLICE: Final = 128 * 1024

#: Members encoded at once, at most: orjson sets aside 256 bytes for each.
SLICE_MEMBERS: Final = 2048

#: Characters of a long string that are encoded at once: orjson sets aside 8 times the UTF-8 length of a string.
STRING_SLICE: Final = 32 * 1024

#: Characters from which on a value counts as unmeasurable. No broker takes a message as long; such a value holds one
#: container many times over, as pickle and YAML can send it, and could be without end.
MOST: Final = 512 * 1024 * 1024

#: Levels down to which containers are cut up. Deeper ones, and cycles, are left to the encoder, which ends them.
SLICE_DEPTH: Final = 16

#: Estimated bytes up to which a member beside big ones is encoded together with its neighbors.
SMALL_MEMBER: Final = 64

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

#: Stands for a container that is cut up, before its members (see ``slices``).
FRAME: Final = object()


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
            return encode(obj)[0]
        chars = size = 0
        for piece, frame, _ in slices(obj):
            if piece is not FRAME:
                (piece_chars, piece_bytes), _ = encode(piece)
                chars += piece_chars
                size += piece_bytes
            chars -= frame
            size -= frame
            if chars > MOST:
                return None
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


def slices(obj: Any, level: int = 1) -> Iterator[tuple[Any, int, int]]:
    """What to encode one after another, so that none needs much more than a slice: (piece, frame, level).

    The sizes of the pieces, less *frame* each (what encoding it adds to what it stands for: quotes, brackets, commas),
    add up to the size of *obj*. A container that is cut up comes as ``FRAME`` and then as its members; its frame is
    negative: brackets and commas. *level* is that of the containers in a piece: the outermost is at level 1.
    """
    kind, depth = type(obj), SLICE_DEPTH - level + 1
    if kind is str and len(obj) > SLICE:
        yield "", 0, level
        for start in range(0, len(obj), STRING_SLICE):
            yield obj[start : start + STRING_SLICE], 2, level
    elif kind is bytes and len(obj) > SLICE:
        yield from _bytes_slices(obj, level)
    elif not depth or kind not in _PARTS or _estimate(obj, depth) <= SLICE:
        yield obj, 0, level
    else:
        yield FRAME, -1 - len(obj), level
        yield from (_dict_slices if kind is dict else _list_slices)(obj, depth, level)


def _bytes_slices(obj: bytes, level: int) -> Iterator[tuple[Any, int, int]]:
    """What kombu sends for bytes: the text they hold in UTF-8, else base64, in an envelope."""
    view, decoder = memoryview(obj), codecs.getincrementaldecoder("utf-8")()
    starts = range(0, len(obj), STRING_SLICE)
    try:
        for start in starts:
            decoder.decode(view[start : start + STRING_SLICE], final=start == starts[-1])
    except UnicodeDecodeError:
        coded = (len(obj) + 2) // 3 * 4 - 4  # the envelope below has base64 of one byte, which is 4 characters
        yield b"\xff", -coded, level
        return
    yield b"", 0, level
    decoder.reset()
    for start in starts:
        yield decoder.decode(view[start : start + STRING_SLICE], final=start == starts[-1]), 2, level


def _list_slices(obj: Any, depth: int, level: int) -> Iterator[tuple[Any, int, int]]:
    step = _members_a_slice(obj, depth)
    for chunk in _few(obj, depth) if step == 1 else (obj[start : start + step] for start in range(0, len(obj), step)):
        if len(chunk) == 1:
            yield from slices(chunk[0], level + 1)
        else:
            yield chunk, len(chunk) + 1, level


def _dict_slices(obj: dict[Any, Any], depth: int, level: int) -> Iterator[tuple[Any, int, int]]:
    step = _members_a_slice(obj, depth)
    items = iter(obj.items())
    if step == 1:
        for pairs in _few(items, depth):
            if len(pairs) == 1:
                ((key, value),) = pairs
                yield {key: 0}, 3, level  # "{" + key + ":0}"
                yield from slices(value, level + 1)
            else:
                yield _checked(dict(pairs), len(pairs)), len(pairs) + 1, level
        return
    for start in range(0, len(obj), step):
        count = min(step, len(obj) - start)
        yield _checked(dict(islice(items, count)), count), count + 1, level


def _checked(chunk: dict[Any, Any], count: int) -> dict[Any, Any]:
    if len(chunk) != count:  # keys that were not equal when they were put there
        raise ValueError
    return chunk


def _few(members: Iterable[Any], depth: int) -> Iterator[list[Any]]:
    """Runs of small *members* (or dict items), and the others one by one."""
    run: list[Any] = []
    for member in members:
        if _estimate(member, depth) > SMALL_MEMBER:
            if run:
                yield run
            yield [member]
            run = []
        else:
            run.append(member)
            if len(run) == SLICE_MEMBERS:
                yield run
                run = []
    if run:
        yield run


def _members_a_slice(obj: Any, depth: int) -> int:
    """How many members to encode at once; 1 (each member cut up in turn) where single members can be big."""
    if len(obj) <= SAMPLE:
        return 1
    return max(1, min(SLICE_MEMBERS, SLICE * len(obj) // _estimate(obj, depth)))


# -- one slice ----------------------------------------------------------------------------------------------------

if orjson is not None:
    _OPTIONS: Final = (
        orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
    )

    def encode(obj: object, default: Callable[[Any], object] | None = kombu_form) -> tuple[Size, bytes | None]:
        """Size of *obj*, encoded in one go, and its JSON; that is ``None`` where json had to tell.

        Without *default*, that is also for all that JSON lacks. Raises whatever the encoding raises.
        """
        try:
            data = orjson.dumps(obj, default, _OPTIONS)
        except Exception as exc:  # noqa: BLE001 - more than orjson takes (big ints, surrogates, int keys, …): json decides
            if not isinstance(exc.__cause__ or exc, Exception):  # an interrupt that came within default
                raise exc.__cause__ from None  # type: ignore[misc]
            return _exactly(obj), None
        extra = 0 if type(obj) is str else _doubt(data, obj)
        if extra is None:
            return _exactly(obj), None
        size = len(data)
        return Size((size if data.isascii() else len(data.decode())) + extra, size + extra), data


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


def _exactly(obj: object) -> Size:
    """Size by json and kombu's encoder: slower, and the definition of right."""
    text = encode_exactly(obj)
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return Size(len(text), size)


if orjson is None:

    def encode(  # type: ignore[unreachable, unused-ignore]
        obj: object,
        default: object = None,  # noqa: ARG001 - as above
    ) -> tuple[Size, bytes | None]:
        """As above, by json alone."""
        return _exactly(obj), None
