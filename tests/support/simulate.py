"""Simulates a producer and a worker without a broker: Celery makes the messages, and celery_argsize measures them."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from celery import Celery
from kombu.utils.json import dumps, loads

from celery_argsize.figures.counters import Figures, Rules, Tally
from celery_argsize.figures.summary import Summary, summarize
from celery_argsize.settings import DEFAULT_BUCKETS
from celery_argsize.worker.recorder import measure_celery_task_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery_argsize.measuring.measurement import Measurement

Call = tuple[tuple[Any, ...], dict[str, Any]]
RULES = Rules(1024, DEFAULT_BUCKETS)


def fresh_app() -> Celery:
    return Celery("simulated", broker="memory://", set_as_current=False)


def publish(app: Celery, task: str, call: Call, **options: Any) -> Any:
    """The message that *app* would send for *task*."""
    make: Any = app.amqp
    return make.create_task_message("id", task, *call, origin="gen1@web-1", **options)


def receive(task: str, message: Any) -> Measurement:
    """The measurement of a worker that receives *message*, with its body sent through JSON."""
    args, kwargs, _ = loads(dumps(message.body))
    fields = ("argsrepr", "kwargsrepr", "origin")
    request = SimpleNamespace(id="id", **{name: message.headers[name] for name in fields})
    return measure_celery_task_size(SimpleNamespace(name=task, request=request), "id", args, kwargs)


def observe(app: Celery, calls: Mapping[str, Iterable[Call]], seconds: float = 3600.0) -> Summary:
    """The summary of all *calls*, task name → arguments, as if they were made within *seconds*."""
    tally = Tally(100)
    for task, seen in calls.items():
        for call in seen:
            tally.add(receive(task, publish(app, task, call)), RULES)
    now = time.time()
    return summarize(Figures("simulated", tally.tasks, now - seconds, now))
