"""The public function for Prometheus: a collector of an app's figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery_argsize.advice.brokers import broker_name
from celery_argsize.api.advice import get_advice
from celery_argsize.api.location import Reader, locate
from celery_argsize.prometheus.collector import ArgsizeCollector, Recommender

if TYPE_CHECKING:
    from celery import Celery
    from typing_extensions import Unpack

    from celery_argsize.api.location import Where


def collector(app: Celery | None = None, *, broker: str | None = None, **where: Unpack[Where]) -> ArgsizeCollector:
    """A collector of all workers' figures. Use: ``REGISTRY.register(collector(app))``.

    *broker*: by default that of *app*. *where*: ``redis_url``, ``key_prefix``, ``app_name``.

    Raises:
        ConfigError: it is not clear where to look, or the figures are in no Redis.
    """
    location = locate(app, **where)
    broker = broker or (broker_name(location.app) if location.app is not None else None)
    return ArgsizeCollector(
        Reader(location),
        location.settings.histogram_buckets,
        broker=broker,
        recommended=Recommender(lambda: get_advice(app, broker=broker, **where)),
    )
