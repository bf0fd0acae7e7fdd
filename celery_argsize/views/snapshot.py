"""A report that was kept as JSON (``argsize report --json``), read back as one side of a diff.

Pure: parsed JSON goes in, a ``Snapshot`` comes out. Files and Redis are read by ``commands.diff``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.errors import ConfigError
from celery_argsize.figures.summary import JSON_SCHEMA
from celery_argsize.measuring.measurement import PARTS
from celery_argsize.words import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What to do about a file that is no report.
REMAKE: Final = "make one with: celery -A proj argsize report --json > FILE"

#: No counter in Redis goes beyond.
_MOST: Final = 2**63
#: The last second of the year 9999: there are no dates beyond.
_LAST: Final = 253_402_300_799


@dataclass(frozen=True, slots=True)
class Sizes:
    """One part of one task, in characters."""

    count: int
    """How many were measured."""
    mean: Fraction | None
    """The exact mean; ``None`` where none was measured."""
    p95: int
    max: int
    truncated: int
    """How many came with a repr that Celery had cut."""

    def to_json(self) -> dict[str, Any]:
        """The sizes as JSON-able data."""
        return {**asdict(self), "mean": None if self.mean is None else float(self.mean)}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was measured by some moment."""

    where: str
    """Where it is from, for people: a file, or the URL of a Redis."""
    apps: tuple[str, ...]
    since: float | None
    """When counting began, in seconds since the epoch."""
    updated: float | None
    """When the newest figures were written, in seconds since the epoch."""
    total_tasks: int
    """Runs measured."""
    tasks: Mapping[str, Mapping[str, Sizes]]
    """By name of the task and part."""


def parse_snapshot(data: Any, where: str) -> Snapshot:
    """*data*, which is what ``report --json`` wrote; *where* says from where, for people.

    Raises:
        ConfigError: it is something else, or of another schema.
    """
    try:
        schema = _number(data["schema"], int)
        if schema == JSON_SCHEMA:
            return _snapshot(data, where)
    except (AttributeError, KeyError, TypeError):
        message = f"{where} is not a report of celery-argsize; {REMAKE}"
        raise ConfigError(message) from None
    message = f"{where} has schema {schema}, and this version of celery-argsize reads {JSON_SCHEMA}; with it, {REMAKE}"
    raise ConfigError(message)


def _snapshot(data: dict[str, Any], where: str) -> Snapshot:
    apps = data["apps"]
    if not isinstance(apps, list) or not all(isinstance(app, str) for app in apps):
        raise TypeError
    since, updated = (
        None if data[key] is None else _number(data[key], int, float, most=_LAST) for key in ("since", "updated")
    )
    tasks = {printable(name): {part: _sizes(task[part]) for part in PARTS} for name, task in data["tasks"].items()}
    return Snapshot(where, tuple(apps), since, updated, _number(data["total_tasks"], int), tasks)


def _sizes(part: dict[str, Any]) -> Sizes:
    count, p95, largest, truncated = (_number(part[key], int) for key in ("count", "p95", "max", "truncated"))
    # The mean was made from two whole numbers, so rounding gives back the exact sum.
    chars = round(_number(part["mean"], int, float) * count)
    return Sizes(count, Fraction(chars, count) if count else None, p95, largest, truncated)


def _number(value: Any, *types: type, most: float = _MOST) -> Any:
    """*value*, if its type is one of *types* and it lies between 0 and *most*.

    Raises:
        TypeError: it is not so.
    """
    if type(value) not in types or not 0 <= value < most:
        raise TypeError
    return value
