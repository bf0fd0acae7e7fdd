"""For Prometheus: a collector, to be registered in a registry of prometheus_client or served by a server of its own.

What the metrics are is in ``exposition``; the server is ``MetricsServer``.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from celery_argsize.brokers import broker_name, broker_of
from celery_argsize.config import DEFAULT_BUCKETS
from celery_argsize.exposition import SHOWN, SHOWN_WITH_EXEMPLARS, Scrape, exposition, families, metrics
from celery_argsize.metrics_server import MetricsServer
from celery_argsize.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from celery import Celery
    from prometheus_client.core import Metric

    from celery_argsize.advice import ReprLimits
    from celery_argsize.stats import Figures

__all__ = ["ArgsizeCollector", "MetricsServer", "collector"]


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
        self._trouble = Trouble("the figures cannot be read, and scrapes say so (celery_task_args_up 0)")

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
                self._trouble.report(exc)
                return None
            self._trouble.over("the figures can be read again")
            return figures


def collector(app: Celery | None = None, *, broker: str | None = None, **where: Any) -> ArgsizeCollector:
    """A collector of what all workers of *app* measured, for a registry: ``REGISTRY.register(collector(app))``.

    *where* says otherwise which figures are meant (``redis_url``, ``key_prefix``, ``app_name``), as for
    ``get_size_summary``. *broker* is by default that of *app*.

    Raises:
        ConfigError: it is not clear where to look, or the figures are in no Redis.
    """
    # Here and not at the top: a worker that serves its own figures needs none of it.
    from celery_argsize.configure import get_advice  # noqa: PLC0415
    from celery_argsize.recommender import Recommender  # noqa: PLC0415
    from celery_argsize.target import Reader, find_target  # noqa: PLC0415

    target = find_target(app, **where)
    broker = broker or (broker_name(target.app) if target.app is not None else None)
    return ArgsizeCollector(
        Reader(target),
        target.settings.histogram_buckets,
        broker=broker,
        recommended=Recommender(lambda: get_advice(app, broker=broker, **where)),
    )
