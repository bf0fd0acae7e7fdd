"""Finds settings with which the connections of a cluster fit into a Redis, by trying ``model``."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from celery_argsize.connections.model import GREEN, SHARED, Setup, items_of, totals

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The least that works in any pool: ``inspect`` and ``revoke`` hold one connection while they
#: take another, and a result backend has one for pub/sub and one for commands.
LEAST: Final = 2

#: The least ceiling that is advised for a redis-py pool. One that is never reached costs nothing.
ROOMY: Final = 4


def fitting(setup: Setup, room: int) -> dict[str, int] | None:
    """Setting → value with which each Redis gets at most *room* connections; ``None``: none do.

    They are those of *setup* if it fits, and else those with the fewest connections.
    ``max_connections`` is an option of ``broker_transport_options``.
    """
    concurrency = min(setup.concurrency, largest_concurrency(setup, room))
    if not concurrency:
        return None
    fitted = setup if _fits(setup, room) else _least(setup, concurrency)
    shared = fitted.result_backend_thread_safe
    # all greenlets of a worker acknowledge through one channel
    channel = fitted.concurrency if fitted.pool in GREEN else 0
    backend = max(fitted.at_once, fitted.threads) if shared else 0
    settings = {"worker_concurrency": fitted.concurrency}
    if fitted.read or fitted.write:
        settings["broker_pool_limit"] = fitted.broker_pool_limit
        settings["max_connections"] = max(ROOMY, channel + 2)
    if fitted.result:
        settings["redis_max_connections"] = max(ROOMY, backend + 2)
    return {**settings, "result_backend_thread_safe": True} if shared else settings


def lines_of(settings: Mapping[str, int]) -> list[str]:
    """Lines of Python for *settings*, to paste where ``app`` is configured."""
    lines = {name: f"app.conf.{name} = {value}" for name, value in settings.items()}
    lines["worker_concurrency"] += "  # --concurrency on the command line wins"
    if "max_connections" in settings:
        name = "broker_transport_options"
        options = f'{{**(app.conf.{name} or {{}}), "max_connections": {settings["max_connections"]}}}'
        lines["max_connections"] = f"app.conf.{name} = {options}"
    return [*lines.values()]


def largest_concurrency(setup: Setup, room: int) -> int:
    """The largest concurrency that can fit into *room*; 0: none."""
    most = max(room, setup.concurrency)  # what is in no Redis is not bounded by one
    return bisect_left(range(1, most + 1), x=True, key=lambda n: not _fits(_least(setup, n), room))


def _least(setup: Setup, concurrency: int) -> Setup:
    """*setup* with the settings that need the fewest connections."""
    saves = setup.shareable and (setup.pool in SHARED or setup.threads > 1)
    shared = setup.result_backend_thread_safe or saves
    lean = replace(setup, concurrency=concurrency, result_backend_thread_safe=shared)
    # with fewer, threads that send remote control wait for each other for ever
    users = max(lean.threads, lean.at_once)
    return replace(lean, broker_pool_limit=users + 1 if lean.control else LEAST)


def _fits(setup: Setup, room: int) -> bool:
    return all(count is not None and count <= room for count in totals(items_of(setup)).values())
