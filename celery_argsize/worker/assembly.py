"""What measures and writes in a worker, put together.

Imported when a worker starts, so that a producer does not pay for it. All that children and the flusher's threads need
is imported here, at the top: a fork while a thread imports would leave that import locked in the child for ever.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from celery_argsize.errors import ConfigError
from celery_argsize.failure_log import FailureLog
from celery_argsize.figures.counters import rules_of
from celery_argsize.stores.base import writer_name
from celery_argsize.stores.memory import MemoryStore
from celery_argsize.worker.flusher import Flusher
from celery_argsize.worker.handoff import LocalHandoff, PipeHandoff, PipeWriter
from celery_argsize.worker.recorder import Recorder

if TYPE_CHECKING:
    from celery import Celery

    from celery_argsize.figures.counters import Figures
    from celery_argsize.prometheus.server import MetricsServer
    from celery_argsize.settings import Settings
    from celery_argsize.stores.base import Store
    from celery_argsize.worker.handoff import Handoff


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts of one worker; the flusher is yet to be started."""

    store: Store
    handoff: Handoff
    recorder: Recorder
    flusher: Flusher
    server: MetricsServer | None = None
    """Serves this worker's own metrics, where a port is set for it."""

    def start(self) -> None:
        """Start the threads of this process."""
        self.flusher.start()
        if self.server is not None:
            self.server.start()

    def report(self, hostname: str) -> list[str]:
        """The lines for the log at shutdown."""
        # Half a megabyte that children would share all their lives; when this is called, no more are forked.
        from celery_argsize.figures.summary import summarize  # noqa: PLC0415
        from celery_argsize.views.report import shutdown_lines  # noqa: PLC0415

        return shutdown_lines(hostname, summarize(self.flusher.own_figures()))


def build(app: Celery, settings: Settings, hostname: str, *, in_process: bool, spawns: bool) -> Assembly:
    """What a worker's main process needs, whose tasks run *in_process*, or in children that it forks or *spawns*."""
    store = _worker_store(settings)
    handoff: Handoff
    if in_process:
        handoff = LocalHandoff(rules_of(settings), settings.max_task_names)
    else:
        handoff = PipeHandoff(rules_of(settings), settings.max_task_names, named=spawns)
    recorder = Recorder(app, settings, handoff)
    flusher = Flusher(handoff, store, settings, writer_name(hostname))
    server = _server(app, settings, flusher) if hostname and settings.prometheus_port else None
    return Assembly(store, handoff, recorder, flusher, server)


def join(app: Celery, settings: Settings, path: str) -> tuple[Recorder, PipeWriter]:
    """What a spawned child needs: it opens, by its *path*, the pipe that a forked one would have inherited."""
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    handoff = PipeWriter(fd, rules_of(settings), settings.max_task_names)
    return Recorder(app, settings, handoff), handoff


@dataclass(frozen=True, slots=True)
class _Own:
    """What a worker measured itself, for a collector."""

    flusher: Flusher

    def read(self, fields: tuple[str, ...]) -> Figures:  # noqa: ARG002 - all are at hand
        return self.flusher.own_figures()


def _server(app: Celery, settings: Settings, flusher: Flusher) -> MetricsServer | None:
    # Here and not at the top: only who wants it pays for the import. Still before the first fork.
    from celery_argsize.advice.brokers import broker_name  # noqa: PLC0415
    from celery_argsize.prometheus.collector import ArgsizeCollector  # noqa: PLC0415
    from celery_argsize.prometheus.server import MetricsServer  # noqa: PLC0415

    collector = ArgsizeCollector(_Own(flusher), settings.histogram_buckets, broker=broker_name(app))
    try:
        return MetricsServer(
            collector,
            settings.prometheus_host,
            settings.prometheus_port or 0,
            certfile=settings.prometheus_certfile,
            keyfile=settings.prometheus_keyfile,
            client_cafile=settings.prometheus_client_cafile,
        )
    except ConfigError as exc:  # most likely another worker on this machine has the port
        FailureLog("this worker runs without metrics of its own (argsize_prometheus_port)").report(exc, logging.ERROR)
        return None


def _worker_store(settings: Settings) -> Store:
    if settings.redis_url is None:
        return MemoryStore(settings)
    # Here and not at the top: only who uses Redis pays for the import. Still before the first fork.
    from celery_argsize.stores.redis import RedisStore  # noqa: PLC0415

    store = RedisStore(settings)
    store.prepare()
    return store
