"""Reads an app's configuration: its tasks, queues, broker and schedule. It opens no connection.

The checks of it are in ``judge``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from celery.schedules import maybe_schedule

from celery_argsize.doctor.facts import Unavailable
from celery_argsize.redis_url import is_redis_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

#: Seconds until an unacknowledged message goes to another worker: kombu's defaults.
VISIBILITY_TIMEOUTS: Final = {"redis": 3600, "sqs": 1800}


def own_tasks(app: Celery) -> list[Any]:
    """The app's tasks without Celery's own, sorted by name."""
    return [app.tasks[name] for name in sorted(app.tasks) if not name.startswith("celery.")]


def queue_of(app: Celery, name: str, options: Mapping[str, Any] | None = None) -> str | None:
    """The queue of a task that is sent with *options* of ``apply_async``; ``None``: not known."""
    task: Any = app.tasks.get(name)
    own = {key: getattr(task, key, None) for key in ("queue", "exchange", "routing_key")}
    given = {key: value for key, value in own.items() if value} | dict(options or {})
    try:  # routers are asked without the task's arguments
        queue = app.amqp.router.route(given, name, (), {}, task)["queue"]
    except Exception:  # noqa: BLE001 - a router of the app's own, or a queue that it forbids
        return None
    return getattr(queue, "name", queue) or None


def routed_queues(app: Celery) -> dict[str, str]:
    """Queue → what is sent there, such as ``the task a``. The default queue is left out."""
    routes = app.conf.task_routes if isinstance(app.conf.task_routes, dict) else {}
    queues = [route.get("queue") if isinstance(route, dict) else route for route in routes.values()]
    senders: dict[Any, str] = {getattr(queue, "name", queue): "a route" for queue in queues}
    for name, entry in read_schedule(app).items():
        if entry:
            senders[entry.queue] = f"the beat_schedule entry {name}"
    senders |= {queue_of(app, task.name): f"the task {task.name}" for task in own_tasks(app)}
    left_out = {None, "", app.conf.task_default_queue}
    return {queue: senders[queue] for queue in senders if queue not in left_out}


def known_queues(app: Celery) -> set[str]:
    """Every queue that the configuration names, and the default one."""
    return {app.conf.task_default_queue, *app.amqp.queues, *routed_queues(app)}


def number(value: Any) -> float | None:
    """*value* as a number; ``None`` if it is not one."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def number_of(app: Celery, name: str) -> float:
    """The setting *name* as a number; 0 where it is not set.

    Raises:
        Unavailable: it is something else, which the check settings.values reports.
    """
    amount = number(app.conf[name] or 0)
    if amount is None:
        reason = f"{spelled(app, name)} is not a number: see settings.values"
        raise Unavailable(reason)
    return amount


def transport_options(app: Celery) -> dict[str, Any]:
    """``broker_transport_options`` as a dict."""
    return dict(app.conf.broker_transport_options or {})


def broker_kind(app: Celery) -> str:
    """What carries the messages, as in URLs: ``redis``, ``amqp``, ``sqs``."""
    url: Any = app.conf.broker_read_url or app.conf.broker_transport or "amqp"
    url = str(url[0] if isinstance(url, (list, tuple)) else url)
    return "redis" if is_redis_url(url) else url.partition(":")[0].lower()


def results_in_redis(app: Celery) -> bool:
    """Whether the result backend is a Redis."""
    return is_redis_url(str(app.conf.result_backend or ""))


def spelled(app: Any, name: str) -> str:
    """The setting *name* in the app's namespace: ``CELERY_TASK_TIME_LIMIT``."""
    namespace = str(getattr(app, "namespace", None) or "").rstrip("_")
    whole = f"{namespace}_{name}".lower() if namespace else name
    return whole.upper() if namespace.isupper() else whole


def setting_path(app: Any, name: str) -> str:
    """What to assign to: ``app.conf.timezone``, or the name in a namespace."""
    return spelled(app, name) if getattr(app, "namespace", None) else f"app.conf.{name}"


def setting(app: Any, name: str, value: object) -> str:
    """A line of Python that gives the setting *name* the *value*."""
    return f"{setting_path(app, name)} = {value!r}"


def transport_option(app: Celery, name: str, value: object) -> str:
    """A line that sets one of ``broker_transport_options``. Others may hold passwords, and are not shown."""
    options = "broker_transport_options"
    if app.conf[options]:
        return f"{setting_path(app, options)}[{name!r}] = {value!r}"
    return setting(app, options, {name: value})


def word_of(app: Any) -> str:
    """What to write after ``-A`` for *app*; ``proj`` where that is not known."""
    main = "proj" if app.main in {None, "", "__main__"} else app.main
    return next((module for module in _modules(main) if _holds(module, app)), main)


def is_of_app(app: Any, word: str) -> bool:
    """Whether ``-A`` *word* means *app*: by name, or as a loaded module holds it."""
    module = word.partition(":")[0]
    modules = (*_modules(module), module.rpartition(".")[0])
    return bool(module) and (module == app.main or any(_holds(name, app) for name in modules))


def _modules(word: str) -> tuple[str, ...]:
    """Where Celery looks for the app of ``-A`` *word*."""
    return word, f"{word}.celery", f"{word}.app"


def _holds(module: str, app: Any) -> bool:
    """Whether a global of the loaded *module* is *app*."""
    content = vars(sys.modules[module]) if module in sys.modules else {}
    return any(value is app for value in [*content.values()])


@dataclass(frozen=True)
class Entry:
    """One entry of ``beat_schedule``."""

    name: str
    task: str
    queue: str | None
    every: float | None
    """Seconds from one run to the next; ``None``: by the clock (crontab, solar)."""
    schedule: Any

    def times_due(self, seconds: float, grace: float) -> float:
        """How often it was due between *seconds* and *grace* seconds ago. A crontab counts once at most."""
        if self.every is not None:
            return max(0.0, (seconds - grace) / self.every)
        since = self.schedule.now() - timedelta(seconds=seconds)
        return float(self.schedule.remaining_estimate(since) <= timedelta(seconds=-grace))


def read_schedule(app: Celery) -> dict[str, Entry | None]:
    """Entries of ``beat_schedule`` by name; ``None``: Beat cannot read it."""
    entries = app.conf.beat_schedule or {}
    return {name: _entry(app, name, entry) for name, entry in entries.items()}


def _entry(app: Celery, name: str, entry: Any) -> Entry | None:
    try:
        schedule: Any = maybe_schedule(entry["schedule"], app=app)
        schedule.remaining_estimate(schedule.now())
        interval = getattr(schedule, "run_every", None)
        every = interval.total_seconds() if interval else None
        queue = queue_of(app, entry["task"], entry.get("options"))
        return Entry(name, entry["task"], queue, every, schedule)
    except Exception:  # noqa: BLE001 - Beat fails with it as well
        return None


def external_scheduler(app: Celery) -> str:
    """The scheduler, if it is not one of Celery's; it keeps a schedule of its own."""
    scheduler = app.conf.beat_scheduler
    if not isinstance(scheduler, str):
        scheduler = f"{scheduler.__module__}:{scheduler.__qualname__}"
    own = {"celery.beat.PersistentScheduler", "celery.beat.Scheduler"}
    return "" if scheduler.replace(":", ".") in own else scheduler
