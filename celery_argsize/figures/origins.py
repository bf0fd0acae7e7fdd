"""What the newest messages of each sending host show of its limits for reprs.

Pure. A header (the repr in a message) is cut where the message is sent. A cut one
shows the highest that the limit can be; a long whole one, the lowest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.measuring.cuts import DEFAULT_LEVELS, DEFAULT_LIMIT
from celery_argsize.measuring.measurement import PARTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.measuring.measurement import Measurement

#: Field of the sighting that shows only when a host's newest message came.
SEEN: Final = "seen"


class Sighting(NamedTuple):
    """What one header shows of a limit."""

    value: int
    """``size``: the highest that the limit can be, in characters. ``whole``:
    characters of a whole header. ``depth``: levels of one cut by depth.
    ``deep``: levels of a whole one."""
    time: float
    """When a worker saw it, in seconds since the epoch."""


def sightings_of(measurement: Measurement) -> dict[str, Sighting]:
    """What *measurement* shows of the host that sent the message, by ``seen`` and ``kind:part:task``."""
    if not measurement.origin:
        return {}
    time, shown = measurement.time, {SEEN: Sighting(0, measurement.time)}
    for name, part in zip(PARTS, (measurement.args, measurement.kwargs), strict=True):
        if part.verdict != "intact":
            values = {"size": part.limit, "depth": part.levels}
        else:  # a whole header within Celery's defaults shows nothing
            values = {
                "whole": part.header if part.header > DEFAULT_LIMIT else 0,
                "deep": part.levels if part.levels > DEFAULT_LEVELS else 0,
            }
        for kind, value in values.items():
            if value:
                shown[f"{kind}:{name}:{measurement.task}"] = Sighting(value, time)
    return shown


class Origins:
    """The latest sightings by host, then by ``kind:part:task``."""

    MAX_HOSTS: Final = 200
    #: Most sightings of one host.
    MAX_SIGHTINGS: Final = 200

    def __init__(self) -> None:
        self.hosts: dict[str, dict[str, Sighting]] = {}

    def add(self, measurement: Measurement) -> None:
        """Note what *measurement* shows of the host that sent the message."""
        for field, sighting in sightings_of(measurement).items():
            self._note(measurement.origin, field, sighting)

    def _note(self, host: str, field: str, sighting: Sighting) -> None:
        """Keep *sighting*, unless there is a later one, or no room."""
        if host not in self.hosts and len(self.hosts) >= self.MAX_HOSTS:
            return
        sightings = self.hosts.setdefault(host, {})
        if field in sightings:
            if sightings[field].time > sighting.time:
                return
        elif len(sightings) >= self.MAX_SIGHTINGS:
            return
        sightings[field] = sighting

    def merge(self, hosts: Mapping[str, Mapping[str, Sighting]]) -> None:
        """Add all sightings in *hosts*."""
        for host, sightings in hosts.items():
            for field, sighting in sightings.items():
                self._note(host, field, sighting)

    def take(self, hosts: int | None = None) -> dict[str, dict[str, Sighting]]:
        """Remove and return at most *hosts* hosts, or all."""
        return {host: self.hosts.pop(host) for host in [*self.hosts][:hosts]}

    def clear(self, task: str | None = None) -> None:
        """Forget the sightings of *task*, or all hosts."""
        if task is None:
            self.hosts.clear()
        for sightings in self.hosts.values():
            for field in [field for field in sightings if field.split(":", 2)[2:] == [task]]:
                del sightings[field]
