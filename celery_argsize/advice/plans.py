"""The lowest limits that keep a task's reprs whole, and their cost.

Pure. ``adviser`` chooses among these plans.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from celery_argsize.advice.advice import TIERS, Cost, ReprLimits
from celery_argsize.advice.brokers import OTHER_HEADERS, Broker
from celery_argsize.measuring.cuts import DEFAULT_LEVELS, DEFAULT_LIMIT
from celery_argsize.measuring.measurement import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.figures.summary import PartSummary, TaskSummary

    Parts = dict[str, PartSummary]

#: Limits for brokers whose headers must fit a frame, which
#: the guide's tiers exceed.
FRAME_LIMITS: Final = (DEFAULT_LIMIT, 16 * 1024, 64 * 1024)


@dataclass(frozen=True, slots=True)
class ReprSpeed:
    """Seconds that saferepr takes for each piece of a repr: see ``Shape``."""

    member: float
    key: float
    container: float
    chain_step: float
    byte: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Limits for a task, and what is wrong with them, if anything."""

    limits: ReprLimits
    problems: tuple[str, ...]
    cost: Cost


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans limits for one broker. ``advise`` explains the fields."""

    broker: Broker
    celery_version: str
    days: float
    min_runs: int
    max_publish_seconds: float
    repr_speed: ReprSpeed | None

    def no_limit(self, parts: Parts) -> str:
        """Why no limits keep *parts* whole."""
        needs = " and ".join(f"{part.need.max:,} ({name})" for name, part in parts.items())
        most, broker = f"over the highest tier, {TIERS[-1].limit:,}", self.broker
        if broker.headers_max is not None:
            most = f"and all headers of a message must fit {broker.headers_max:,} bytes ({broker.source})"
        return f"whole reprs take up to {needs} characters, {most}"

    def plan(self, task: TaskSummary, parts: Parts, need: Literal["max", "p99"]) -> Plan | None:
        """The lowest limits for reprs of up to *need*; ``None`` if they are too high."""
        fitting = self._fitting(parts, {name: getattr(part.need, need) for name, part in parts.items()})
        if fitting is None:
            return None
        levels = max(DEFAULT_LEVELS, *(part.need.levels for part in parts.values()))
        limits = ReprLimits(levels=levels, **fitting)
        cost = self._cost(task, parts, limits)
        return Plan(limits, tuple(self._problems(task, parts, limits, cost)), cost)

    def _fitting(self, parts: Parts, needs: dict[str, int]) -> dict[str, int] | None:
        """Limits for *needs* (characters) that the broker takes, if any."""
        in_frame = self.broker.headers_max is not None
        steps = FRAME_LIMITS if in_frame else (DEFAULT_LIMIT, *(tier.limit for tier in TIERS))
        stepped = {name: next((step for step in steps if need <= step), 0) for name, need in needs.items()}
        if not in_frame:
            return stepped if all(stepped.values()) else None
        kib = {name: max(1, math.ceil(need / 1024)) * 1024 for name, need in needs.items()}
        stepped = {name: step or kib[name] for name, step in stepped.items()}
        density = {name: bytes_per_char(part) for name, part in parts.items()}
        return next((limits for limits in (stepped, kib) if self.fits_frame(limits, density)), None)

    def fits_frame(self, limits: dict[str, int], density: dict[str, float]) -> bool:
        """Whether reprs as long as *limits* fit the headers of one message.

        *density*: bytes for a character, by part. Parts not in *limits* have the default.
        """
        if self.broker.headers_max is None:
            return True
        default = DEFAULT_LIMIT * 4  # UTF-8: up to 4 bytes a character
        taken = sum(limits[name] * density[name] if name in limits else default for name in PARTS)
        return taken + OTHER_HEADERS <= self.broker.headers_max

    def _problems(self, task: TaskSummary, parts: Parts, limits: ReprLimits, cost: Cost) -> Iterator[str]:
        largest = self.broker.body_bytes(task.args.max_bytes + task.kwargs.max_bytes)
        for name, part in parts.items():
            per_char, _ = self._carried(part)
            largest += min(getattr(limits, name), part.need.max) * per_char
        most = self.broker.message_max
        if most is not None and largest > most:
            takes = f"the broker takes {most:,} ({self.broker.source})"
            yield f"the largest message would take about {largest:,.0f} bytes, and {takes}"
        mean = ("on average", cost.publish_seconds or 0, self.max_publish_seconds)
        worst = ("for the largest", cost.publish_seconds_max or 0, 10 * self.max_publish_seconds)
        for which, seconds, limit in (mean, worst):
            if seconds > limit:
                yield f"a publish would take {seconds * 1000:,.0f} ms longer {which}, over {limit * 1000:,.0f} ms"
                return

    def _carried(self, part: PartSummary) -> tuple[float, float]:
        """Bytes in the broker: of one character of a whole repr, and of all cut reprs."""
        cuts, need = part.cuts, max(1, part.cuts.need)
        if self.broker.carries not in {"json", "base64"}:
            return cuts.bytes / need, cuts.sent_bytes
        growth = 4 / 3 if self.broker.carries == "base64" else 1
        return cuts.escaped / need * growth, cuts.sent_escaped * growth

    def _cost(self, task: TaskSummary, parts: Parts, limits: ReprLimits) -> Cost:
        extra = sent = seconds = seconds_max = 0.0
        speed = self.repr_speed
        for name, part in parts.items():
            limit, buckets = getattr(limits, name), part.cuts.buckets
            per_char, before = self._carried(part)
            sent += before
            extra += sum(min(bucket.need, bucket.count * limit) for bucket in buckets) * per_char - before
            if speed is not None:
                for bucket in buckets:
                    seconds += bucket.count * _more_seconds(part, bucket.mean, limit, speed)
                seconds_max += _more_seconds(part, part.need.max, limit, speed)
        body = self.broker.body_bytes(task.args.mean_bytes + task.kwargs.mean_bytes)
        return Cost(
            extra_bytes=extra / task.truncated,
            extra_bytes_a_day=extra / self.days if self.days else None,
            message_bytes=body + sent / task.truncated,
            publish_seconds=seconds / task.truncated if speed else None,
            publish_seconds_max=seconds_max if speed else None,
            count=sum(part.cuts.count for part in parts.values()),
        )


def _more_seconds(part: PartSummary, need: float, limit: int, speed: ReprSpeed) -> float:
    """How much longer a repr of *need* characters takes than under the default limit.

    Most pieces grow with the length, chain steps with its square.
    """
    cuts = part.cuts
    if not cuts.need:
        return 0.0
    squares = sum(bucket.count * bucket.mean**2 for bucket in cuts.buckets)
    pieces = cuts.commas * speed.member + cuts.keys * speed.key + cuts.containers * speed.container
    per_char = (pieces + cuts.bytes * speed.byte) / cuts.need
    per_square = cuts.chain_steps * speed.chain_step / squares
    after, before = min(need, limit), min(need, DEFAULT_LIMIT)
    return (after - before) * per_char + (after**2 - before**2) * per_square


def bytes_per_char(part: PartSummary) -> float:
    """UTF-8 bytes for a character, in the densest value of *part*."""
    return max(1.0, part.max_density / 1000)
