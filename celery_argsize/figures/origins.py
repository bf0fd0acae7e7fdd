"""Where messages come from: for each sending host, the latest headers that tell which limits are in force there.

Pure. Limits act where messages are made, so only a host's own messages can show whether a change has arrived there:
a header that was cut tells that the limit is no higher, a long one that came whole that it is no lower. What is kept is
no counter: the latest sighting of a kind wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.measuring.cuts import DEFAULT_LEVELS, DEFAULT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.measuring.measurement import Plain, PlainPart

#: The sighting that says no more than that a host has sent something.
SEEN: Final = "seen"


class Sighting(NamedTuple):
    """One header that tells something."""

    value: int
    """``size``: characters that the limit is at most. ``whole``: characters that it let through. ``depth``: levels that
    are shown, and no more. ``deep``: levels that are."""
    time: float
    """When it was seen by a worker, in seconds since the epoch."""


class Origins:
    """Sightings by host, and by kind, part and task: bounded, the rest is not kept."""

    #: Hosts, and sightings of one host.
    MAX_HOSTS: Final = 200
    MAX_SIGHTINGS: Final = 200

    def __init__(self) -> None:
        self.hosts: dict[str, dict[str, Sighting]] = {}

    def add(self, measurement: Plain) -> None:
        """Note what the headers of *measurement* tell of the host that it came from."""
        task, _, args, kwargs, when, origin = measurement
        if not origin:
            return
        self._note(origin, SEEN, Sighting(0, when))
        for name, part in (("args", args), ("kwargs", kwargs)):
            if part[1] != "intact" or part[2] > DEFAULT_LIMIT or part[3] > DEFAULT_LEVELS:  # most tell nothing
                for kind, value in _tells(part):
                    self._note(origin, f"{kind}:{name}:{task}", Sighting(value, when))

    def _note(self, host: str, field: str, sighting: Sighting) -> None:
        known = self.hosts.get(host)
        if known is None:
            if len(self.hosts) >= self.MAX_HOSTS:
                return
            known = self.hosts[host] = {}
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
            return
        for sightings in self.hosts.values():
            for field in [field for field in sightings if field != SEEN and field.split(":", 2)[2] == task]:
                del sightings[field]


def _tells(part: PlainPart) -> list[tuple[str, int]]:
    _, verdict, header, levels, limit, _ = part
    if verdict == "intact":  # more than Celery lets through by itself
        told = [("whole", header, DEFAULT_LIMIT), ("deep", levels, DEFAULT_LEVELS)]
    else:
        told = [("size", limit, 0), ("depth", levels, 0)]
    return [(kind, value) for kind, value, least in told if value > least]
