"""Histograms as counters have them, and percentiles that are never too low. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def buckets(prefix: str, counts: Mapping[str, int]) -> list[tuple[float, int]]:
    """The buckets in *counts* under *prefix*: (upper bound, number), rising."""
    filled = ((name[len(prefix) :], number) for name, number in counts.items() if name.startswith(prefix))
    return sorted((float(bound.replace("+Inf", "inf")), number) for bound, number in filled)


def label(bound: float) -> str:
    """The name of a bucket: its inclusive upper bound, or ``+Inf``."""
    return "+Inf" if math.isinf(bound) else str(int(bound))


def quantile(histogram: Sequence[tuple[float, int]], share: float, largest: int) -> int:
    """The bound of the bucket of the *share* quantile (nearest rank), never above *largest*."""
    rank = math.ceil(share * sum(number for _, number in histogram))
    for bound, number in histogram:
        rank -= number
        if rank <= 0:
            return int(min(bound, largest))
    return 0
