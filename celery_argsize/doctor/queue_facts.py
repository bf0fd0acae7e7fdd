"""To which queues an app sends, as its configuration says; no I/O.

Routers may be functions of the app's own. They are asked as Celery itself asks them, without arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["defaulted_tasks", "known_queues", "own_tasks", "queue_of", "routed_queues"]


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


def own_tasks(app: Celery) -> list[str]:
    """The tasks of the app, without Celery's own."""
    return sorted(name for name in app.tasks if not name.startswith("celery."))


def routed_queues(app: Celery) -> dict[str, str]:
    """Queue → a sentence's part that says what sends there, for those that someone named: not the default alone."""
    found: dict[str, str] = {}
    default = app.conf.task_default_queue
    for name in own_tasks(app):
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
    return [name for name in own_tasks(app) if queue_of(app, name) == app.conf.task_default_queue]


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
