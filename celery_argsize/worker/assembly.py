"""Builds the parts that measure and write in a worker. Producers do not import it.

A worker imports this module before its first fork, and with it all
that children and threads use. A fork during an import would leave
that import locked in the child.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from celery_argsize.errors import ConfigError
from celery_argsize.failure_log import FailureLog
from celery_argsize.figures.counters import rules_of
from celery_argsize.stores.base import Store, writer_name
from celery_argsize.stores.memory import MemoryStore
from celery_argsize.worker.flusher import Flusher
from celery_argsize.worker.handoff import Handoff, LocalHandoff, PipeHandoff, PipeWriter
from celery_argsize.worker.recorder import Recorder

if TYPE_CHECKING:
    from celery import Celery

    from celery_argsize.prometheus.server import MetricsServer
    from celery_argsize.settings import Settings


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts in the main process of a worker."""

    settings: Settings
    store: Store
    handoff: Handoff
    recorder: Recorder
    flusher: Flusher
    server: MetricsServer | None  # serves only this worker's figures


def build(app: Celery, settings: Settings, hostname: str, *, in_process: bool, spawns: bool) -> Assembly:
    """Build the parts. Tasks run *in_process*, or in children. *spawns*: some children may not be forked."""
    rules, max_names = rules_of(settings), settings.max_task_names
    store = _worker_store(settings)
    handoff = LocalHandoff(rules, max_names) if in_process else PipeHandoff(rules, max_names, named=spawns)
    recorder = Recorder(app, settings, handoff)
    flusher = Flusher(handoff, store, settings, writer_name(hostname))
    server = _metrics_server(app, settings, flusher) if hostname and settings.prometheus_port else None
    return Assembly(settings, store, handoff, recorder, flusher, server)


def build_for_child(app: Celery, settings: Settings, path: str) -> Recorder:
    """The recorder of a spawned child, for the pipe at *path*. Forked children inherit theirs."""
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    return Recorder(app, settings, PipeWriter(fd, rules_of(settings), settings.max_task_names))


def _worker_store(settings: Settings) -> Store:
    if settings.redis_url is None:
        return MemoryStore(settings)
    from celery_argsize.stores.redis import RedisStore  # noqa: PLC0415 - only with Redis

    store = RedisStore(settings)
    store.prepare()
    return store


def _metrics_server(app: Celery, settings: Settings, flusher: Flusher) -> MetricsServer | None:
    # Imported only by workers that serve metrics.
    from celery_argsize.advice.brokers import broker_name  # noqa: PLC0415
    from celery_argsize.prometheus.collector import ArgsizeCollector  # noqa: PLC0415
    from celery_argsize.prometheus.server import MetricsServer  # noqa: PLC0415

    collector = ArgsizeCollector(flusher, settings.histogram_buckets, broker=broker_name(app))
    try:
        return MetricsServer(
            collector,
            settings.prometheus_host,
            settings.prometheus_port or 0,
            certfile=settings.prometheus_certfile,
            keyfile=settings.prometheus_keyfile,
            client_cafile=settings.prometheus_client_cafile,
        )
    except ConfigError as exc:  # most likely another worker has the port
        FailureLog("this worker runs without metrics of its own (argsize_prometheus_port)").report(exc, logging.ERROR)
        return None
