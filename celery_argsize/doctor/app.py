"""To which queues an app sends, as its configuration says; no I/O.

Routers may be functions of the app's own. They are asked as Celery itself asks them, without arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery.schedules import maybe_schedule, schedule
from kombu import serialization

from celery_argsize.doctor.facts import Unavailable
from celery_argsize.redis_url import is_redis_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

    from celery_argsize.doctor.facts import Facts


def queue_of(app: Celery, name: str, options: Mapping[str, Any] | None = None) -> str | None:
    """The queue that the task *name* is sent to with *options*; ``None`` where a function decides, or an exchange."""
    task: Any = app.tasks.get(name)
    given = {key: getattr(task, key, None) for key in ("queue", "exchange", "routing_key")} if task else {}
    sent = {**{key: value for key, value in given.items() if value}, **(options or {})}
    try:
        found = app.amqp.router.route(sent, name, (), {}, task)
    except Exception:  # noqa: BLE001 - a router of the app's own, or a queue that it forbids
        return None
    return _name(found.get("queue"))


def own_task_names(app: Celery) -> list[str]:
    """The tasks of the app, without Celery's own."""
    return sorted(name for name in app.tasks if not name.startswith("celery."))


def routed_queues(app: Celery) -> dict[str, str]:
    """Queue → a sentence's part that says what sends there, for those that someone named: not the default alone."""
    found: dict[str, str] = {}
    default = app.conf.task_default_queue
    for name in own_task_names(app):
        queue = queue_of(app, name)
        if queue is not None and queue != default:
            found.setdefault(queue, f"the task {name} is sent there")
    for queue in _in_routes(app.conf.task_routes):
        found.setdefault(queue, "task_routes names it")
    for name, entry in (app.conf.beat_schedule or {}).items():
        # what else is there, beat.schedule tells
        queue = queue_of(app, entry.get("task", ""), entry.get("options")) if isinstance(entry, Mapping) else None
        if queue is not None:
            found.setdefault(queue, f"the beat_schedule entry {name} is sent there")
    return found


def defaulted_tasks(app: Celery) -> list[str]:
    """The tasks of the app that go to the default queue."""
    return [name for name in own_task_names(app) if queue_of(app, name) == app.conf.task_default_queue]


def known_queues(app: Celery) -> set[str]:
    """All queues that the app names in any way."""
    return {app.conf.task_default_queue, *app.amqp.queues, *routed_queues(app)}


def _in_routes(routes: Any) -> list[str]:
    """Queues that ``task_routes`` names: a mapping of tasks or patterns, pairs of that, or a list of these."""
    if isinstance(routes, Mapping):
        return [name for _, route in routes.items() if (name := _of_route(route))]
    if not isinstance(routes, (list, tuple)):
        return []
    if len(routes) == 2 and isinstance(routes[0], str) and (name := _of_route(routes[1])):  # noqa: PLR2004 - a pair
        return [name]
    return [name for one in routes for name in _in_routes(one)]


def _of_route(route: Any) -> str | None:
    return _name(route.get("queue")) if isinstance(route, Mapping) else route if isinstance(route, str) else None


def _name(queue: Any) -> str | None:
    name = getattr(queue, "name", queue)
    return name if isinstance(name, str) and name else None


#: kombu's names of serializers, such as pickle → the types that messages carry; celery-types lacks them.
TYPES: Final[dict[str, str]] = vars(serialization)["registry"].name_to_type


def number(value: Any) -> float | None:
    """The number that *value* is; ``None`` where it is none."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def number_of(facts: Facts, name: str) -> float | None:
    """The number that the setting *name* is; ``None`` where it is not set.

    Raises:
        Unavailable: it is none.
    """
    value = facts.conf[name]
    found = number(value)
    if value and found is None:
        raise Unavailable(f"{spelled(facts.app, name)} is not a number: see settings.values")  # noqa: EM102, TRY003
    return found


def transport_options(facts: Facts) -> dict[str, Any]:
    """broker_transport_options, as Celery reads them; empty where that cannot be done."""
    try:
        return {str(name): value for name, value in dict(facts.conf.broker_transport_options or {}).items()}
    except (TypeError, ValueError):
        return {}


def own_tasks(facts: Facts) -> Iterator[tuple[str, Any, tuple[float | None, float | None]]]:
    """The app's own tasks: name, task, and its soft and hard time limits in seconds."""
    conf = facts.conf
    for name in own_task_names(facts.app):
        task: Any = facts.app.tasks[name]
        soft, hard = task.soft_time_limit or conf.task_soft_time_limit, task.time_limit or conf.task_time_limit
        yield name, task, (number(soft), number(hard))


def broker_kind(facts: Facts) -> str:
    """What carries the messages: ``redis``, ``amqp``, ``sqs``."""
    url: Any = facts.conf.broker_read_url or facts.conf.broker_transport or "amqp"
    url = str(url[0] if isinstance(url, (list, tuple)) else url)
    scheme = url.partition(":")[0].lower()
    return (
        "redis" if is_redis_url(url) or scheme == "redis" else {"pyamqp": "amqp", "amqps": "amqp"}.get(scheme, scheme)
    )


def results_in_redis(facts: Facts) -> bool:
    """Whether a Redis keeps the results."""
    return is_redis_url(str(facts.conf.result_backend or ""))


def transport_option(facts: Facts, name: str, value: object) -> str:
    """A line that sets an option and leaves the others, which may be secret, where they are."""
    line = setting(facts.app, "broker_transport_options", {name: value})
    return f"{line.partition(' = ')[0]}[{name!r}] = {value!r}" if facts.conf.broker_transport_options else line


#: Schedulers that take what is due from ``beat_schedule`` and nowhere else.
_OWN_SCHEDULERS: Final = ("celery.beat.PersistentScheduler", "celery.beat.Scheduler")


class Entry(NamedTuple):
    """One entry of ``beat_schedule``."""

    name: str
    task: str
    queue: str | None
    """Where it is sent; ``None`` where that cannot be said."""
    every: float | None
    """Seconds from one to the next; ``None``: by the clock (crontab, solar)."""
    schedule: Any
    expires: bool
    """Whether a worker drops it when it comes late."""

    def due(self, seconds: float, grace: float) -> float:
        """How often it was due in the last *seconds*, up to *grace* seconds ago. Of a crontab: 1 for ever so often."""
        if self.every is not None:
            return max(0.0, (seconds - grace) / self.every)
        since = self.schedule.now() - timedelta(seconds=seconds)
        return float(self.schedule.remaining_estimate(since) <= timedelta(seconds=-grace))


def entries(app: Celery) -> list[Entry]:
    """What is in ``beat_schedule``, without what cannot be read."""
    return [entry for _, entry in _read(app) if entry is not None]


def unreadable(app: Celery) -> list[str]:
    """Names of what is in ``beat_schedule`` and cannot be read."""
    return [name for name, entry in _read(app) if entry is None]


def _read(app: Celery) -> list[tuple[str, Entry | None]]:
    schedule = app.conf.beat_schedule or {}
    return [(str(name), _entry(app, str(name), schedule[name])) for name in schedule]


def _entry(app: Celery, name: str, entry: Any) -> Entry | None:
    try:
        when: Any = maybe_schedule(entry["schedule"], app=app)
        # crontab and the like are classes of their own: only this one has an interval
        plain = type(when) is schedule
        every = when.run_every.total_seconds() if plain else None
        when.remaining_estimate(when.now())
        options = entry.get("options") or {}
        task = entry["task"]
        return Entry(name, task, queue_of(app, task, options), every or None, when, "expires" in options)
    except Exception:  # noqa: BLE001 - whatever is there: what Beat makes of it is no better
        return None


def shortest_interval(app: Celery) -> float | None:
    """Seconds between two of what is due most often; ``None`` where nothing is due at an interval."""
    return min((entry.every for entry in entries(app) if entry.every), default=None)


def foreign_scheduler(app: Celery) -> str:
    """The scheduler, where it keeps a schedule of its own; empty where ``beat_schedule`` is all."""
    scheduler = app.conf.beat_scheduler
    name = scheduler if isinstance(scheduler, str) else f"{scheduler.__module__}:{scheduler.__qualname__}"
    return "" if name.replace(":", ".") in _OWN_SCHEDULERS else name


def spelled(app: Any, name: str) -> str:
    """The setting *name*, such as ``task_time_limit``, as it is written in the settings of *app*; no app: as it is."""
    namespace = str(getattr(app, "namespace", None) or "").rstrip("_")
    full = f"{namespace}_{name}"
    # As Celery itself does it: the case of the namespace is the case of the whole name.
    return name if not namespace else full.upper() if namespace.isupper() else full.lower()


def setting(app: Any, name: str, value: object) -> str:
    """A line of Python that gives the setting *name* the *value* in *app*."""
    namespaced = bool(getattr(app, "namespace", None))
    return f"{'' if namespaced else 'app.conf.'}{spelled(app, name)} = {value!r}"


def word_of(app: Any) -> str:
    """What to write after ``-A`` for *app*, as far as it can be told."""
    main = str(app.main or "")
    spelled = [name for name in (main, f"{main}.celery", f"{main}.app") if app in _values(name)]
    return spelled[0] if spelled and main != "__main__" else main if main not in {"", "__main__"} else "proj"


def is_of_app(app: Any, word: str) -> bool:
    """Whether ``-A`` *word* means *app*: its name, or a module that has it."""
    module = word.partition(":")[0]
    if not module:
        return False
    spelled = {module, f"{module}.celery", f"{module}.app", module.rpartition(".")[0]}
    return module == app.main or any(app in _values(name) for name in spelled if name)


def _values(module: str) -> list[Any]:
    return [value for value in vars(sys.modules[module]).values() if _is_app(value)] if module in sys.modules else []


def _is_app(value: object) -> bool:
    return any(base.__module__ == "celery.app.base" for base in type(value).__mro__)
