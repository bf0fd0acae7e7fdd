"""From a summary to the limit that the size guide recommends: a rule of thumb, said to be one.

Pure. The numbers are those of the guide (docs/guide.md): 1.2 times the largest part, and a tier by its size. KB here
is 1,024 characters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from celery_argsize.summary import Summary

__all__ = ["TIERS", "Recommendation", "Tier", "recommend"]

KB: Final = 1024


@dataclass(frozen=True, slots=True)
class Tier:
    """One row of the guide's table."""

    below: int
    """Holds for a largest part under this many characters."""
    limit: int
    """The value for ``argsrepr_maxsize`` and ``kwargsrepr_maxsize``, in characters."""
    name: str
    range: str
    suits: str


#: The guide's table. Its last row ends where its own limit does: nothing in it covers a larger part.
TIERS: Final = (
    Tier(100 * KB, 128 * KB, "128KB", "< 100KB", "standard, for most cases"),
    Tier(500 * KB, 512 * KB, "512KB", "100KB - 500KB", "large libraries"),
    Tier(1024 * KB, 1024 * KB, "1MB", "500KB - 1MB", "very large collections"),
    Tier(2048 * KB + 1, 2048 * KB, "2MB", "1MB - 2MB", "massive data sets or batches"),
)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What the guide recommends. All sizes in characters."""

    max_size: int
    """The largest part that was seen."""
    limit: int
    """1.2 times that, rounded down."""
    tier: int | None
    """The guide's tier for that, or ``None`` where no tier covers it (over 2 MB)."""
    tier_name: str
    """The tier as people say it, such as ``128KB``, or ``none``."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The three lines to paste where tasks are sent from (the producer makes the repr, not the worker).

        None where no tier covers what was seen.
        """
        if self.tier is None:
            return ()
        return (
            "# where tasks are sent from (Celery cuts there), after app = Celery(...):",
            f"app.amqp.argsrepr_maxsize = {self.tier}",
            f"app.amqp.kwargsrepr_maxsize = {self.tier}",
        )


def recommend(summary: Summary) -> Recommendation:
    """The guide's recommendation for what *summary* holds."""
    size = max(summary.max_args_size, summary.max_kwargs_size)
    limit = size * 12 // 10
    for tier in TIERS:
        if size < tier.below:
            return Recommendation(size, limit, tier.limit, tier.name)
    return Recommendation(size, limit, None, "none")
