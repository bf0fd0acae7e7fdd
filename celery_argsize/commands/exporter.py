"""``celery argsize exporter``: serves the figures of all workers to Prometheus."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

import click

from celery_argsize.api.collector import collector
from celery_argsize.commands import common
from celery_argsize.prometheus.server import MetricsServer


@common.command
@common.broker_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve at; 0.0.0.0 for all.")
@click.option("--port", default=9808, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free port.")
@click.option("--certfile", type=click.Path(), help="Certificate, for TLS; PEM.")
@click.option("--keyfile", type=click.Path(), help="Its key, if that is in another file.")
@click.option("--client-cafile", type=click.Path(), help="Answer only to clients with a certificate of this authority.")
def exporter(*, source: common.Source, broker: str | None, **options: Any) -> None:
    """Serve the figures of all workers to Prometheus, at /metrics.

    One for the cluster is enough. It ends with 0 on SIGTERM or Ctrl-C.

    Example: celery -A proj argsize exporter --host 127.0.0.1 --port 9808
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    server = MetricsServer(collector(source.app, broker=broker, **source.where), **options)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    server.start()
    click.echo(f"Serving metrics at {server.url}", err=True)
    ended.wait()
    server.stop()
