"""The measurement of one task run, as named tuples and, for speed, as plain ones. Also shortens names.

``worker.recorder`` makes measurements, ``figures`` adds them up.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.measuring.cuts import CUTS
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.repr_shape import Shape
from celery_argsize.words import printable

if TYPE_CHECKING:
    from typing import TypeAlias

    from celery_argsize.measuring.cuts import Verdict

    #: A ``Part`` and a ``Measurement`` as plain tuples. Making named ones takes
    #: longer than measuring does.
    PlainPart: TypeAlias = tuple[tuple[int, int] | None, Verdict, int, int, int, tuple[int, ...] | None]
    Plain: TypeAlias = tuple[str, str, PlainPart, PlainPart, float, str]

PARTS: Final = ("args", "kwargs")

#: Most UTF-8 bytes of a task name, a task id and a host, so that a message to the
#: main process stays under PIPE_BUF.
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
    """Levels in its repr, if it was cut by depth, and in a
    sample of uncut ones. Else 0."""
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


def is_large(measurement: Plain, limit: int) -> bool:
    """Whether either part of *measurement* is over *limit* characters."""
    args, kwargs = measurement[2][0], measurement[3][0]
    return (args is not None and args[0] > limit) or (kwargs is not None and kwargs[0] > limit)


def named(measurement: Plain) -> Measurement:
    """*measurement* with named fields."""

    def part(plain: PlainPart) -> Part:
        size, verdict, header, levels, limit, shape = plain
        return Part(size and Size(*size), verdict, header, levels, limit, None if shape is None else Shape(*shape))

    task, task_id, args, kwargs, when, origin = measurement
    return Measurement(task, task_id, part(args), part(kwargs), when, origin)


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
