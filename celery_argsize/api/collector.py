"""api.collector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_argsize.advice.brokers import broker_name
from celery_argsize.prometheus.collector import ArgsizeCollector

if TYPE_CHECKING:
    from celery import Celery


def collector(app: Celery | None = None, *, broker: str | None = None, **where: Any) -> ArgsizeCollector:
    """A collector of what all workers of *app* measured, for a registry: ``REGISTRY.register(collector(app))``.

    *where* says otherwise which figures are meant (``redis_url``, ``key_prefix``, ``app_name``), as for
    ``get_size_summary``. *broker* is by default that of *app*.

    Raises:
        ConfigError: it is not clear where to look, or the figures are in no Redis.
    """
    # Here and not at the top: a worker that serves its own figures needs none of it.
    from celery_argsize.api.advice import get_advice  # noqa: PLC0415
    from celery_argsize.api.location import Reader, locate  # noqa: PLC0415
    from celery_argsize.prometheus.collector import Recommender  # noqa: PLC0415

    location = locate(app, **where)
    broker = broker or (broker_name(location.app) if location.app is not None else None)
    return ArgsizeCollector(
        Reader(location),
        location.settings.histogram_buckets,
        broker=broker,
        recommended=Recommender(lambda: get_advice(app, broker=broker, **where)),
    )
