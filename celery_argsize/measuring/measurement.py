"""One task run, measured: what a task's process hands over, with names for people, and as plain tuples for speed.

Pure. How it is made is in ``recorder``, what is added up of many in ``stats``.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.measuring.cuts import CUTS
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.repr_shape import Shape

if TYPE_CHECKING:
    from typing import TypeAlias

    from celery_argsize.measuring.cuts import Verdict

PARTS: Final = ("args", "kwargs")


class Part(NamedTuple):
    """One part (args or kwargs) of one task, measured."""

    size: Size | None
    """Its size as compact JSON, or ``None`` where it has no JSON form."""
    verdict: Verdict = "unknown"
    """What Celery did to the repr of it that came with the message."""
    header: int = 0
    """Characters of that repr; 0 where none came."""
    levels: int = 0
    """Levels that it shows, where it was cut by depth; where it is intact, in one run of some; else 0."""
    limit: int = 0
    """Where that was cut by size: the sender's limit in characters, at most; 0 where the cut does not tell."""
    shape: Shape | None = None
    """The whole repr, where Celery cut it."""

    @property
    def truncated(self) -> bool:
        """Whether Celery cut its repr, by size or by depth."""
        return self.verdict in CUTS

    @property
    def need(self) -> int | None:
        """Characters of the whole repr, or ``None`` where they are not known: a custom repr, or none."""
        if self.verdict == "intact":
            return self.header
        return None if self.shape is None else self.shape.need


class Measurement(NamedTuple):
    """The arguments of one task run, measured. Sizes, names and ids only."""

    task: str
    """The task's name."""
    task_id: str
    args: Part
    kwargs: Part
    time: float
    """When it was measured, in seconds since the epoch."""
    origin: str = ""
    """The host that sent the message; empty where that is not known."""

    @property
    def truncated(self) -> bool:
        """Whether either part was truncated."""
        return self.args.truncated or self.kwargs.truncated

    @property
    def unmeasurable(self) -> bool:
        """Whether either part has no JSON form."""
        return self.args.size is None or self.kwargs.size is None

    def is_large(self, limit: int) -> bool:
        """Whether either part is over *limit* characters."""
        return is_large(self, limit)


if TYPE_CHECKING:
    #: A ``Part`` and a ``Measurement``, or plain tuples of the same: names cost a task more than its measuring.
    PlainPart: TypeAlias = tuple[tuple[int, int] | None, Verdict, int, int, int, tuple[int, ...] | None]
    Plain: TypeAlias = tuple[str, str, PlainPart, PlainPart, float, str]


def is_large(measurement: Plain, limit: int) -> bool:
    """Whether either part of *measurement* is over *limit* characters."""
    args, kwargs = measurement[2][0], measurement[3][0]
    return (args is not None and args[0] > limit) or (kwargs is not None and kwargs[0] > limit)


def named(measurement: Plain) -> Measurement:
    """The same with names."""
    task, task_id, args, kwargs, when, origin = measurement
    return Measurement(task, task_id, _named_part(args), _named_part(kwargs), when, origin)


def _named_part(part: PlainPart) -> Part:
    size, verdict, header, levels, limit, shape = part
    return Part(size and Size(*size), verdict, header, levels, limit, None if shape is None else Shape(*shape))


#: UTF-8 bytes of a task name, of a task id and of a host that are kept: a message to the main process stays under
#: PIPE_BUF.
NAME_BYTES: Final = 160
ID_BYTES: Final = 64
ORIGIN_BYTES: Final = 64


def clean(name: object, limit: int) -> str:
    """*name* for logs and Redis: printable, at most *limit* UTF-8 bytes, and still not mistaken for another."""
    whole = name if type(name) is str else str(name)
    if len(whole) <= limit and whole.isascii() and whole.isprintable():
        return whole
    text = whole[: limit + 1]  # however long the rest
    if not text.isprintable():
        text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    data = text.encode()
    if len(data) <= limit and len(whole) <= limit:
        return text
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{data[: limit - 16].decode('utf-8', 'ignore')}...{digest}"


def fit(measurement: Measurement) -> Measurement:
    """*measurement* with names of which as much is kept as of those that are measured here."""
    return measurement._replace(
        task=clean(measurement.task, NAME_BYTES),
        task_id=clean(measurement.task_id, ID_BYTES),
        origin=clean(measurement.origin, ORIGIN_BYTES),
    )
