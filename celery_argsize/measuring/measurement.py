"""The measurement of one task run, and how its parts are measured. Also shortens names.

``worker.recorder`` makes measurements, ``figures`` adds them up.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_argsize.measuring.cuts import CUTS, DEFAULT_LIMIT, begins_like, read_header
from celery_argsize.measuring.json_size import Size, Walked
from celery_argsize.measuring.pure import SMALL, shallow
from celery_argsize.measuring.repr_shape import Shape, is_tuple_of_one, measure_shape
from celery_argsize.measuring.walk import LEVELS
from celery_argsize.words import printable

if TYPE_CHECKING:
    from celery_argsize.measuring.cuts import Verdict

PARTS: Final = ("args", "kwargs")

#: Most UTF-8 bytes of a task name, a task id and a host.
NAME_BYTES: Final = 160
ID_BYTES: Final = 64
ORIGIN_BYTES: Final = 64


class Part(NamedTuple):
    """The args or the kwargs of one task run. "Its repr" is the one that came with the message."""

    size: Size | None
    """Its size as compact JSON; ``None`` if it has no JSON form."""
    verdict: Verdict = "unknown"
    """What Celery did to its repr."""
    header: int = 0
    """Characters of its repr; 0 if none came."""
    levels: int = 0
    """Levels in its repr, if it was cut by depth or is whole. Else 0."""
    limit: int = 0
    """Upper bound of the sender's limit in characters, if its repr
    was cut by size. 0: not known."""
    shape: Shape | None = None
    """Of the whole repr, if it was cut."""

    @property
    def truncated(self) -> bool:
        """Whether Celery cut its repr."""
        return self.verdict in CUTS


class Measurement(NamedTuple):
    """The arguments of one task run: sizes, names and ids only."""

    task: str
    """The task's name."""
    task_id: str
    args: Part
    kwargs: Part
    time: float
    """When it was measured, in seconds since the epoch."""
    origin: str = ""
    """The host that sent the message; empty where that is not known."""


#: Reprs of an empty part, by its type.
_EMPTY_REPRS: Final[dict[type, tuple[str, ...]]] = {tuple: ("()", "[]"), list: ("()", "[]"), dict: ("{}",)}
_NO_SIZE: Final = Size(0, 0)
#: An empty part whose repr is whole. Most runs have one.
EMPTY: Final = Part(_NO_SIZE, "intact", 2, 1)


def measure_part(value: Any, header: object) -> Part:
    """The measurement of args or kwargs. *header*: their repr in the message.

    An empty or absent part counts as nothing. Never raises.
    """
    is_empty = type(value) in _EMPTY_REPRS and not value
    if is_empty and header in _EMPTY_REPRS[type(value)]:
        return EMPTY
    walked = Walked(value)
    figures = walked.figures
    verdict, levels, limit = read_header(header, value)
    if verdict == "intact" and figures is not None:
        levels = figures[LEVELS]
    shape = measure_shape(walked, header) if verdict in CUTS and type(header) is str else None
    size = _NO_SIZE if value is None or is_empty else walked.size
    return Part(size, verdict, len(header) if isinstance(header, str) else 0, levels, limit, shape)


def measure_plain(value: Any, header: object) -> tuple[int, int] | None:
    """Characters as JSON and as a repr of a small part that is all ASCII and holds no container, if its repr is whole.

    ``None`` for other parts. For an empty one: 0 and 2.
    """
    kind = type(value)
    if kind not in _EMPTY_REPRS or type(header) is not str or not header:
        return None
    if not value:
        return (0, 2) if header in _EMPTY_REPRS[kind] else None
    try:
        if len(value) > SMALL or len(header) > DEFAULT_LIMIT or "..." in header or not begins_like(header, value):
            return None
        need, more, _, keys, rest = shallow(value, kind)
    except (IndexError, RuntimeError):  # another thread changes it
        return None
    if keys or rest or len(header) != need + is_tuple_of_one(value, header):
        return None
    return need + more, len(header)


def clean(name: object, limit: int) -> str:
    """*name* fit for logs and Redis: printable, and of at most *limit* UTF-8 bytes.

    A longer name ends in a digest of the whole, so that
    no two names become equal.
    """
    whole = name if type(name) is str else str(name)
    if len(whole) <= limit and whole.isascii() and whole.isprintable():
        return whole
    text = printable(whole[: limit + 1])  # bounds the time
    data = text.encode()
    if len(data) <= limit and len(whole) <= limit:
        return text
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{data[: limit - 16].decode('utf-8', 'ignore')}...{digest}"


def fit(measurement: Measurement) -> Measurement:
    """*measurement*, which a caller made, with its names cleaned."""
    return measurement._replace(
        task=clean(measurement.task, NAME_BYTES),
        task_id=clean(measurement.task_id, ID_BYTES),
        origin=clean(measurement.origin, ORIGIN_BYTES),
    )
