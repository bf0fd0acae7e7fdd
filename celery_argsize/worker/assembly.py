"""Builds the parts that measure and write in a worker. Producers do not import it.

A worker imports this module before its first fork, and with it all
that children and threads use. A fork during an import would leave
that import locked in the child.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from celery_argsize.errors import ArgsizeError, ConfigError
from celery_argsize.failure_log import FailureLog
from celery_argsize.figures.counters import rules_of
from celery_argsize.figures.layout import VERSION
from celery_argsize.stores.base import Store, writer_name
from celery_argsize.stores.memory import MemoryStore
from celery_argsize.worker.flusher import Flusher
from celery_argsize.worker.notes import LocalNotes, NoteWriter, PipeNotes
from celery_argsize.worker.recorder import Recorder
from celery_argsize.worker.shared_counters import SharedCounters

if TYPE_CHECKING:
    from celery import Celery

    from celery_argsize.figures.counters import Rules
    from celery_argsize.prometheus.server import MetricsServer
    from celery_argsize.settings import Settings


def _paths(folder: str, rules: Rules, settings: Settings, children: int) -> tuple[str, str]:
    """The files of the counters and of the notes. Processes with another version or other settings have other files."""
    shape = (VERSION, rules.layout.plan, settings.max_task_names, children)
    suffix = f"{zlib.crc32(repr(shape).encode()):08x}"
    return f"{folder}/counters-{suffix}", f"{folder}/notes-{suffix}"


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts in the main process of a worker."""

    settings: Settings
    store: Store
    counters: SharedCounters
    folder: str | None  # with files for spawned children
    recorder: Recorder
    flusher: Flusher
    server: MetricsServer | None  # serves only this worker's figures


def build(app: Celery, settings: Settings, hostname: str, *, children: int, spawns: bool) -> Assembly:
    """Build the parts. *children*: most processes of the pool; 0: tasks run in this one. *spawns*: not all fork.

    Raises:
        ArgsizeError: the system does not give the memory for the counters.
    """
    rules = rules_of(settings)
    store = _worker_store(settings)
    folder = tempfile.mkdtemp(prefix="celery-argsize-") if spawns and children else None
    counted, noted = (None, None) if folder is None else _paths(folder, rules, settings, children)
    try:
        counters = SharedCounters(rules, settings.max_task_names, children, path=counted)
    except (OSError, OverflowError) as exc:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        message = f"no memory to share with {children} pool processes ({exc}); lower argsize_max_task_names"
        raise ArgsizeError(message) from exc
    notes = PipeNotes(noted) if children else LocalNotes()
    recorder = Recorder(app, settings, rules, counters, notes)
    flusher = Flusher(counters, notes, store, settings, writer_name(hostname))
    server = _metrics_server(app, settings, flusher) if hostname and settings.prometheus_port else None
    return Assembly(settings, store, counters, folder, recorder, flusher, server)


def build_for_child(app: Celery, settings: Settings, folder: str, children: int) -> Recorder:
    """The recorder of a spawned child, for the files in *folder*. Forked children inherit theirs.

    Raises:
        ArgsizeError: the worker has another version of this package, or had other settings when it started.
    """
    rules = rules_of(settings)
    counted, noted = _paths(folder, rules, settings, children)
    if not Path(noted).exists():
        message = "the worker started with another version or other settings of celery_argsize; restart it"
        raise ArgsizeError(message)
    counters = SharedCounters(rules, settings.max_task_names, children, path=counted)
    notes = NoteWriter(os.open(noted, os.O_WRONLY | os.O_NONBLOCK))
    return Recorder(app, settings, rules, counters, notes)


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
