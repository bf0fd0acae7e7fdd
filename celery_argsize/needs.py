"""What the reprs of one part of one task need, so that Celery cuts nothing: the figures that the advice is made from.

Pure. Made from ``TaskStats``; the needs of all parts whose repr is known, and in more detail of those that were cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery_argsize.histogram import buckets, label, quantile
from celery_argsize.stats import CUT_SUMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.stats import TaskStats

__all__ = ["CutBucket", "Cuts", "Need", "cuts_of", "need_of"]


@dataclass(frozen=True, slots=True)
class Need:
    """Characters that saferepr takes when it cuts nothing."""

    count: int
    """Parts of which it is known: custom reprs and missing ones are not among them."""
    max: int
    mean: float
    p95: int
    """An upper estimate, as that of sizes."""
    p99: int
    levels: int
    """The most levels of nested containers among those that were cut; 0 if none was."""
    histogram: Mapping[str, int]
    """Inclusive upper bound of the bucket in characters (``+Inf`` for the last) to the number that fell in it."""

    def to_json(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "count": self.count,
            "max": self.max,
            "mean": self.mean,
            "p95": self.p95,
            "p99": self.p99,
            "levels": self.levels,
        }


@dataclass(frozen=True, slots=True)
class CutBucket:
    """Truncated parts whose need falls in one bucket."""

    bound: float
    """Its inclusive upper bound in characters; infinite for the last."""
    deep: bool
    """Whether they have more levels than Celery shows by default."""
    count: int
    need: int
    """Characters, the sum."""

    @property
    def mean(self) -> float:
        """Characters that one needs."""
        return self.need / self.count


@dataclass(frozen=True, slots=True)
class Cuts:
    """All truncated parts that could be measured, added up."""

    buckets: tuple[CutBucket, ...]
    bytes: int
    """This and what follows: sums over whole reprs, see ``shape.Shape``."""
    escaped: int
    sent_bytes: int
    sent_escaped: int
    commas: int
    keys: int
    texts: int
    containers: int
    pile: int

    @property
    def count(self) -> int:
        """How many."""
        return sum(bucket.count for bucket in self.buckets)

    @property
    def need(self) -> int:
        """Characters of whole reprs."""
        return sum(bucket.need for bucket in self.buckets)


def need_of(part: str, stats: TaskStats) -> Need:
    """The needs of *part* in *stats*."""
    largest = stats.maxima.get(f"{part}.max_need")
    levels = stats.maxima.get(f"{part}.max_levels")
    seen = buckets(f"{part}.need_le.", stats.counts)
    count = sum(n for _, n in seen)
    top = largest.value if largest else 0
    return Need(
        count=count,
        max=top,
        mean=stats.counts.get(f"{part}.need", 0) / count if count else 0.0,
        p95=quantile(seen, 0.95, top),
        p99=quantile(seen, 0.99, top),
        levels=levels.value if levels else 0,
        histogram={label(bound): n for bound, n in seen},
    )


def cuts_of(part: str, stats: TaskStats) -> Cuts:
    """The truncated parts in *stats*."""
    found = [
        CutBucket(bound, deep, count, needs[bound])
        for deep, kind in ((False, "flat"), (True, "deep"))
        for needs in [dict(buckets(f"{part}.{kind}_need_le.", stats.counts))]
        for bound, count in buckets(f"{part}.{kind}_le.", stats.counts)
        if bound in needs
    ]
    sums: Mapping[str, int] = {name: stats.counts.get(f"{part}.cut_{name}", 0) for name in CUT_SUMS}
    return Cuts(tuple(sorted(found, key=lambda bucket: bucket.bound)), **sums)
