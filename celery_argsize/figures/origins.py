"""Where messages come from: for each sending host, the newest headers that show which limits are in force there.

Pure. Limits act where messages are made, so only the messages of a host can show whether a change has arrived there. A
header that was cut shows that the limit is no higher; a long one that came whole, that it is no lower. These are no
counters: the newest sighting of a kind replaces the one before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.measuring.cuts import DEFAULT_LEVELS, DEFAULT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.measuring.measurement import Plain, PlainPart

#: The sighting that shows only that a host has sent something.
SEEN: Final = "seen"


class Sighting(NamedTuple):
    """What one header shows."""

    value: int
    """By kind. ``size``: characters that the limit is at most. ``whole``: characters that it let through. ``depth``:
    levels at which Celery cut. ``deep``: levels that it let through."""
    time: float
    """When a worker saw it, in seconds since the epoch."""


class Origins:
    """Sightings by host, then by ``kind:part:task``. What is over the caps is not kept."""

    MAX_HOSTS: Final = 200
    #: Sightings of one host.
    MAX_SIGHTINGS: Final = 200

    def __init__(self) -> None:
        self.hosts: dict[str, dict[str, Sighting]] = {}

    def add(self, measurement: Plain) -> None:
        """Note what the headers of *measurement* show of the host that it came from."""
        task, _, args, kwargs, time, host = measurement
        if host:
            self._note(host, SEEN, Sighting(0, time))
            self._add_part(host, "args", args, task, time)
            self._add_part(host, "kwargs", kwargs, task, time)

    def _add_part(self, host: str, name: str, part: PlainPart, task: str, time: float) -> None:
        _, verdict, header, levels, limit, _ = part
        if verdict != "intact":
            if limit:
                self._note(host, f"size:{name}:{task}", Sighting(limit, time))
            if levels:
                self._note(host, f"depth:{name}:{task}", Sighting(levels, time))
            return
        if header > DEFAULT_LIMIT:
            self._note(host, f"whole:{name}:{task}", Sighting(header, time))
        if levels > DEFAULT_LEVELS:
            self._note(host, f"deep:{name}:{task}", Sighting(levels, time))

    def _note(self, host: str, field: str, sighting: Sighting) -> None:
        """Keep *sighting*, unless a later one is known or there is no room."""
        if host not in self.hosts and len(self.hosts) >= self.MAX_HOSTS:
            return
        known = self.hosts.setdefault(host, {})
        if field in known:
            if known[field].time > sighting.time:
                return
        elif len(known) >= self.MAX_SIGHTINGS:
            return
        known[field] = sighting

    def merge(self, hosts: Mapping[str, Mapping[str, Sighting]]) -> None:
        """Add all sightings in *hosts*."""
        for host, sightings in hosts.items():
            for field, sighting in sightings.items():
                self._note(host, field, sighting)

    def take(self, hosts: int | None = None) -> dict[str, dict[str, Sighting]]:
        """Remove and return up to *hosts* hosts, or all."""
        return {host: self.hosts.pop(host) for host in [*self.hosts][:hosts]}

    def clear(self, task: str | None = None) -> None:
        """Forget one task, or all."""
        if task is None:
            self.hosts.clear()
        for sightings in self.hosts.values():
            for field in [field for field in sightings if field.split(":", 2)[2:] == [task]]:
                del sightings[field]
