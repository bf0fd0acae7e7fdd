"""One task run, measured: what a task's process hands over, with names for people, and as plain tuples for speed.

Pure. How it is made is in ``recorder``, what is added up of many in ``stats``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.measure import Size
from celery_argsize.shape import Shape
from celery_argsize.truncation import CUTS

if TYPE_CHECKING:
    from typing import TypeAlias

    from celery_argsize.truncation import Verdict

__all__ = ["PARTS", "Measurement", "Part", "is_large", "named"]

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
