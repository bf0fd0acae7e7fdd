"""``ArgsizeCollector`` reads figures at each scrape. ``Recommender`` keeps the advice."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from celery_argsize.advice.brokers import broker_of
from celery_argsize.failure_log import FailureLog
from celery_argsize.measuring.cuts import CUTS
from celery_argsize.measuring.measurement import PARTS
from celery_argsize.prometheus.metrics import Scrape, exposition, families, metrics
from celery_argsize.settings import DEFAULT_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import Metric

    from celery_argsize.advice.advice import Advice, ReprLimits
    from celery_argsize.figures.counters import Figures

_PART_FIELDS: Final = ("count", "bytes", "max_bytes", *(f"by_{cause}" for cause in CUTS))
#: Prefixes of the fields that metrics show. Stores need not read others.
FIELDS: Final = ("large", "unmeasurable", "errors", *(f"{part}.{name}" for part in PARTS for name in _PART_FIELDS))
#: Exemplars too, which only OpenMetrics shows.
WITH_EXEMPLARS: Final = (*FIELDS, *(f"{part}.last_le" for part in PARTS))


class Source(Protocol):
    """Where figures are read, such as a store."""

    def read(self, fields: tuple[str, ...]) -> Figures:
        """The figures. Fields that begin with none of *fields* may be left out."""


class ArgsizeCollector:
    """The figures of *source* as metrics, read only when they are scraped.

    *bounds* are the upper bounds of histogram buckets, in bytes. *broker* is a URL or the
    name of a kombu transport. *recommended* gives the recommended limits, and never waits.
    """

    def __init__(
        self,
        source: Source,
        bounds: Iterable[int] = DEFAULT_BUCKETS,
        *,
        broker: str | None = None,
        recommended: Callable[[], ReprLimits | None] = lambda: None,
    ) -> None:
        self._source = source
        self._bounds = tuple(bounds)
        self._broker_limit = broker_of(broker).body_max
        self._recommended = recommended
        self._reading = threading.Lock()
        self._failed_at = 0.0
        self._failures = FailureLog("the figures cannot be read, and scrapes say so (celery_task_args_up 0)")

    def describe(self) -> Iterator[Metric]:
        """All metrics, without samples: what a registry asks for first."""
        return families(self._bounds)

    def collect(self) -> Iterator[Metric]:
        """All metrics, as objects of prometheus_client."""
        return metrics(self.scrape(), self._bounds)

    def exposition(self, *, openmetrics: bool = False) -> bytes:
        """All metrics as text. Only OpenMetrics has exemplars."""
        return exposition(self.scrape(exemplars=openmetrics), self._bounds, openmetrics=openmetrics)

    def scrape(self, *, exemplars: bool = True) -> Scrape:
        """Read what a scrape shows."""
        begun_at = time.monotonic()
        with self._reading:  # a source has one connection
            if self._failed_at > begun_at:  # another scrape failed while this one waited
                return Scrape(None)
            try:
                figures = self._source.read(WITH_EXEMPLARS if exemplars else FIELDS)
            except Exception as exc:  # noqa: BLE001 - whatever fails
                self._failed_at = time.monotonic()
                self._failures.report(exc)
                return Scrape(None)
            self._failures.over("the figures can be read again")
        return Scrape(figures, self._recommended(), self._broker_limit)


class Recommender:
    """Gives the limits that *advise* recommends. A thread calls *advise* when needed."""

    #: Seconds between two calls of *advise*.
    REFRESH: Final = 300.0
    #: The same while no limits are known.
    RETRY: Final = 15.0
    #: Seconds for which limits may be shown.
    MAX_AGE: Final = 900.0

    def __init__(self, advise: Callable[[], Advice]) -> None:
        self._advise = advise
        self._limits: ReprLimits | None = None
        self._known_at = self._begun_at = -self.MAX_AGE
        self._thread: threading.Thread | None = None
        self._failures = FailureLog("limits cannot be recommended")

    def __call__(self) -> ReprLimits | None:
        """The limits, or ``None`` if none are known. Does not wait."""
        now = time.monotonic()
        due = self._begun_at + (self.RETRY if self._limits is None else self.REFRESH)
        if now >= due and (self._thread is None or not self._thread.is_alive()):
            self._begun_at = now
            self._thread = threading.Thread(target=self._work, name="celery-argsize-recommender", daemon=True)
            self._thread.start()
        return self._limits if now < self._known_at + self.MAX_AGE else None

    def _work(self) -> None:
        try:
            self._limits = self._advise().recommended
            self._known_at = time.monotonic()
        except Exception as exc:  # noqa: BLE001 - whatever fails
            self._failures.report(exc)
