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
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_argsize.foreign import encode_exactly, kombu_form
from celery_argsize.search import has_word
from celery_argsize.slicing import FRAME, PARTS, SLICE, estimate, slices

try:
    import orjson
except ImportError:  # PyPy has no orjson: everything is measured by json, slower and to the same character
    orjson = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "EMPTY",
    "MOST",
    "UNMEASURABLE",
    "Size",
    "encode",
    "measure",
    "measure_json_size",
    "measure_part",
    "measure_plain",
    "measure_small",
]

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


# -- one slice ----------------------------------------------------------------------------------------------------

#: Bytes: as numbers, they are found faster.
DASH, DOT = b"-."

if orjson is not None:
    _OPTIONS: Final = (
        orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
    )

    def encode(
        obj: object, default: Callable[[Any], object] | None = kombu_form
    ) -> tuple[tuple[int, int], bytes | None]:
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
            has_word(data, b"null")
            or (DASH in data and (has_word(data, b"e-") or _UUID.search(data)))
            or (DOT in data and has_word(data, b"0.0000"))
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
    if (has_word(data, b"null") or _UUID.search(data)) and not _is_plain(obj):
        return None
    one_digit = has_word(data, b"e-") and _ONE_DIGIT.search(data)
    four_zeros = has_word(data, b"0.0000")
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


if orjson is None:

    def encode(  # type: ignore[unreachable, unused-ignore]
        obj: object,
        default: object = None,  # noqa: ARG001 - as above
    ) -> tuple[tuple[int, int], bytes | None]:
        """As above, by json alone."""
        return _exactly(obj), None
