"""A report that was kept as JSON, read back: what ``diff`` needs of it, checked.

Pure: JSON-able data as ``report --json`` writes it goes in (docs/report-json.md), a ``Snapshot`` comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.errors import ConfigError
from celery_argsize.measurement import PARTS
from celery_argsize.summary import JSON_SCHEMA
from celery_argsize.table import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["REMAKE", "Sizes", "Snapshot", "parse_snapshot"]

#: What to do about something that is no report.
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
    chars: int
    """Their sum."""
    p95: int
    max: int
    truncated: int
    """How many came with a repr that Celery had cut."""

    @property
    def mean(self) -> Fraction | None:
        """The exact mean; ``None`` where none was measured."""
        return Fraction(self.chars, self.count) if self.count else None

    def to_json(self) -> dict[str, Any]:
        """These as JSON-able data."""
        mean = None if self.mean is None else float(self.mean)
        return {"count": self.count, "mean": mean, "p95": self.p95, "max": self.max, "truncated": self.truncated}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was measured by some moment."""

    where: str
    """Where it is from, for people."""
    runs: int
    since: float | None
    """When counting began, in seconds since the epoch."""
    updated: float | None
    """When the newest figures were written, in seconds since the epoch."""
    apps: tuple[str, ...]
    tasks: Mapping[str, Mapping[str, Sizes]]
    """By name of the task and part."""


def parse_snapshot(data: object, where: str) -> Snapshot:
    """*data*, which is what ``report --json`` wrote; *where* says from where, for people.

    Raises:
        ConfigError: it is something else, or of another schema.
    """
    try:
        schema = _whole(_mapping(data)["schema"])
        if schema == JSON_SCHEMA:
            return _snapshot(_mapping(data), where)
    except (KeyError, TypeError):
        message = f"{where} is not a report of celery-argsize; {REMAKE}"
        raise ConfigError(message) from None
    message = f"{where} has schema {schema}, and this version of celery-argsize reads {JSON_SCHEMA}; with it, {REMAKE}"
    raise ConfigError(message)


def _snapshot(data: dict[str, Any], where: str) -> Snapshot:
    tasks = {
        printable(name): {part: _sizes(_mapping(_mapping(task)[part])) for part in PARTS}
        for name, task in _mapping(data["tasks"]).items()
    }
    since, updated = (None if data[key] is None else _moment(data[key]) for key in ("since", "updated"))
    return Snapshot(where, _whole(data["total_tasks"]), since, updated, _names(data["apps"]), tasks)


def _sizes(part: dict[str, Any]) -> Sizes:
    count = _whole(part["count"])
    # The mean was made from two whole numbers: rounding gives the sum again, exactly.
    return Sizes(
        count, round(_number(part["mean"]) * count), *(_whole(part[key]) for key in ("p95", "max", "truncated"))
    )


def _moment(value: object) -> float:
    if (moment := _number(value)) > _LAST:
        raise TypeError
    return moment


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError
    return tuple(value)


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        raise TypeError
    return value


def _number(value: object) -> float:
    if type(value) not in {int, float} or not isinstance(value, (int, float)) or not 0 <= value < _MOST:
        raise TypeError
    return value
