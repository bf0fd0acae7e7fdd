"""The collector reads figures at each scrape; the recommender works out limits in a thread."""

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

_OF_PARTS: Final = ("count", "bytes", "max_bytes", *(f"by_{cause}" for cause in CUTS))
#: How the names of the counters that metrics show begin. Stores need not read others.
SHOWN: Final = ("large", "unmeasurable", "errors", *(f"{part}.{name}" for part in PARTS for name in _OF_PARTS))
#: With the exemplars, which only OpenMetrics shows.
SHOWN_WITH_EXEMPLARS: Final = (*SHOWN, *(f"{part}.last_le" for part in PARTS))


class Source(Protocol):
    """Where figures are read, such as a store."""

    def read(self, fields: tuple[str, ...]) -> Figures:
        """The figures. Counters that begin with none of *fields* may be left out."""


class ArgsizeCollector:
    """The figures of *source* as metrics, read at each scrape and not before.

    *bounds* are the upper bounds of the histogram's buckets, in bytes. *broker* is a kombu
    transport's name or a URL. *recommended* gives the recommended limits; it must not wait.
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
        """All metrics, without samples. A registry asks for them first."""
        return families(self._bounds)

    def collect(self) -> Iterator[Metric]:
        """All metrics, as of now."""
        return metrics(self.scrape(), self._bounds)

    def exposition(self, *, openmetrics: bool = False) -> bytes:
        """All metrics, as of now, as text."""
        return exposition(self.scrape(exemplars=openmetrics), self._bounds, openmetrics=openmetrics)

    def scrape(self, *, exemplars: bool = True) -> Scrape:
        """What is to be shown now."""
        asked = time.monotonic()
        with self._reading:  # a source has one connection
            if self._failed_at > asked:  # another scrape tried meanwhile
                return Scrape(None)
            try:
                figures = self._source.read(SHOWN_WITH_EXEMPLARS if exemplars else SHOWN)
            except Exception as exc:  # noqa: BLE001 - a StoreError, or our own fault
                self._failed_at = time.monotonic()
                self._failures.report(exc)
                return Scrape(None)
            self._failures.over("the figures can be read again")
        return Scrape(figures, self._recommended(), self._broker_limit)


class Recommender:
    """The limits that *advise* recommends, worked out in a thread when somebody asks."""

    #: Seconds until they are worked out again: if there are some, and if there are
    #: none.
    EVERY: Final = 300.0
    SOON: Final = 15.0
    #: Seconds after which they are too old to be shown.
    OLD: Final = 900.0

    def __init__(self, advise: Callable[[], Advice]) -> None:
        self._advise = advise
        self._limits: ReprLimits | None = None
        self._known_at = self._begun_at = -self.OLD
        self._thread: threading.Thread | None = None
        self._failures = FailureLog("limits cannot be recommended")

    def __call__(self) -> ReprLimits | None:
        """The limits, if they are known. Does not wait."""
        now = time.monotonic()
        due = self._begun_at + (self.SOON if self._limits is None else self.EVERY)
        if now >= due and (self._thread is None or not self._thread.is_alive()):
            self._begun_at = now
            self._thread = threading.Thread(target=self._work, name="celery-argsize-recommender", daemon=True)
            self._thread.start()
        return self._limits if now < self._known_at + self.OLD else None

    def _work(self) -> None:
        try:
            self._limits = self._advise().recommended
            self._known_at = time.monotonic()
        except Exception as exc:  # noqa: BLE001 - a StoreError, or our own fault
            self._failures.report(exc)
