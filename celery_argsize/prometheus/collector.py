"""For Prometheus: a collector, to be registered in a registry of prometheus_client or served by a server of its own.

What the metrics are is in ``exposition``; the server is ``MetricsServer``.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from celery_argsize.advice.brokers import broker_of
from celery_argsize.failure_log import FailureLog
from celery_argsize.prometheus.metrics import SHOWN, SHOWN_WITH_EXEMPLARS, Scrape, exposition, families, metrics
from celery_argsize.settings import DEFAULT_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric

    from celery_argsize.advice.advice import Advice, ReprLimits
    from celery_argsize.figures.counters import Figures


class Source(Protocol):
    """Where figures are read: a store, or several."""

    def read(self, fields: tuple[str, ...]) -> Figures:
        """The figures; perhaps only those *fields*."""


class ArgsizeCollector:
    """The figures of *source*, read once at each scrape; *bounds* are those of the histogram's buckets.

    Nothing is read or connected to when it is registered. Where the source cannot be read, ``celery_task_args_up`` is 0
    and there is nothing else: what was known before is not passed off as fresh. Why is logged, rarely.

    *recommended* gives the limits that are shown as recommended, without waiting, if they are known. *broker* is a
    kombu transport's name or a URL.
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
        """All families, empty."""
        return families(self._bounds)

    def collect(self) -> Iterator[Metric]:
        """All families, as of now."""
        return metrics(self.scrape(), self._bounds)

    def exposition(self, *, openmetrics: bool = False) -> bytes:
        """The same as text, in Prometheus's format or in OpenMetrics."""
        return exposition(self.scrape(exemplars=openmetrics), self._bounds, openmetrics=openmetrics)

    def scrape(self, *, exemplars: bool = True) -> Scrape:
        """What a scrape shows now."""
        figures = self._read(SHOWN_WITH_EXEMPLARS if exemplars else SHOWN)
        return Scrape(figures, None if figures is None else self._recommended(), self._broker_limit)

    def _read(self, fields: tuple[str, ...]) -> Figures | None:
        asked = time.monotonic()
        with self._reading:  # a source has one connection
            if self._failed_at > asked:  # another scrape's attempt began before this one's, and says as much
                return None
            try:
                figures = self._source.read(fields)
            except Exception as exc:  # noqa: BLE001 - a StoreError; any other is our own fault, and no better
                self._failed_at = time.monotonic()
                self._failures.report(exc)
                return None
            self._failures.over("the figures can be read again")
            return figures


class Recommender:
    """What *advise* last recommended, worked out anew in a thread as long as somebody asks."""

    #: Seconds after which it is worked out anew: while it is known, and while it is not, which costs little.
    EVERY: Final = 300.0
    SOON: Final = 15.0
    #: Seconds after which it is too old to be shown.
    OLD: Final = 900.0

    def __init__(self, advise: Callable[[], Advice]) -> None:
        self._advise = advise
        self._limits: ReprLimits | None = None
        self._known_at = self._begun_at = -self.OLD
        self._thread: threading.Thread | None = None
        self._failures = FailureLog("limits cannot be recommended")

    def __call__(self) -> ReprLimits | None:
        """The limits; ``None`` where none are known yet, or not any more. Does not wait."""
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
        except Exception as exc:  # noqa: BLE001 - a StoreError; any other is our own fault, and keeps no scrape back
            self._failures.report(exc)
