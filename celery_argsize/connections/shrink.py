"""Which pools to shrink, and how far, so that the connections of live workers fit into what a Redis takes. Pure.

What ``inspect stats`` told goes in; ``celery_argsize.doctor.shrink`` acts on it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from celery_argsize.connections.model import POOLS, ConnectionItem, Setup, items_of, pool_name, totals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery_argsize.connections.budget import ConnectionBudget


class Shrink(NamedTuple):
    """How far one worker's pool is to shrink."""

    node: str
    now: int
    """Processes it has, or may have with ``--autoscale``."""
    to: int


def plan_shrink(stats: Mapping[str, Any], budget: ConnectionBudget) -> list[Shrink]:
    """How far each live worker's pool is to shrink so that what *budget* counts fits its ``max_clients``.

    All shrink in proportion, none below one process; a worker that is not prefork is counted, and left as it is. Empty
    if all fits. Whether it fits after, ``forecast`` tells: one process each may still be too many.

    Args:
        stats: what ``app.control.inspect().stats()`` gave. These are the workers, whatever *budget* was made for.
        budget: of the same app; its producers, Beat and people count.
    """
    sizes = {node: now for node, reply in stats.items() if (now := processes_of(reply))}
    fewest = _most(stats, budget, [Shrink(node, now, 1) for node, now in sizes.items()])
    one = items_of(replace(budget.setup, workers=1, concurrency=1, pool="prefork"))
    each = totals(tuple(item for item in one if item.who == "pool child"))
    room = budget.max_clients - budget.reserve
    # what each Redis has room for once every worker has one process
    more = [(room - most) // count for server, count in each.items() if count and (most := fewest[server]) is not None]
    allowed = len(sizes) + min(more, default=sum(sizes.values()))
    return [Shrink(node, sizes[node], to) for node, to in _share(sizes, allowed).items() if to < sizes[node]]


def _share(sizes: Mapping[str, int], allowed: int) -> dict[str, int]:
    """*allowed* processes shared out in proportion to *sizes*: at least one each, at most what each has."""
    total = sum(sizes.values())
    if allowed >= total:
        return dict(sizes)
    shares = {node: max(1, size * allowed // total) for node, size in sizes.items()}
    # what rounding left over goes where it cut most; what "at least one" took too much comes from the largest
    by_cut = sorted(sizes, key=lambda node: (shares[node] * total - sizes[node] * allowed, node))
    for node in by_cut[: max(allowed - sum(shares.values()), 0)]:
        shares[node] += 1
    while sum(shares.values()) > max(allowed, len(shares)):
        largest = max(shares, key=lambda node: (shares[node], node))
        shares[largest] -= 1
    return shares


def forecast(stats: Mapping[str, Any], budget: ConnectionBudget, plan: Iterable[Shrink] = ()) -> dict[str, int | None]:
    """By Redis: how many connections at most, with the workers of *stats* after *plan*; ``None``: unbounded."""
    return _most(stats, budget, plan)


def _most(stats: Mapping[str, Any], budget: ConnectionBudget, plan: Iterable[Shrink]) -> dict[str, int | None]:
    planned = {step.node: step.to for step in plan}
    nobody = replace(budget.setup, workers=0)
    items = list(items_of(nobody))
    for node, reply in stats.items():
        items += _items(replace(nobody, workers=1, producers=0, beat=False, inspectors=0), reply, planned.get(node))
    return totals(tuple(items))


def _items(alone: Setup, reply: Mapping[str, Any], size: int | None) -> tuple[ConnectionItem, ...]:
    pool = pool_name(str(pool_of(reply).get("implementation", "")))
    known = pool if pool in POOLS else alone.pool
    concurrency = size or processes_of(reply) or pool_of(reply).get("max-concurrency") or 1
    return items_of(replace(alone, pool=known, concurrency=int(concurrency)))


def pool_of(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a worker's ``stats`` reply says of its pool."""
    pool = reply.get("pool")
    return pool if isinstance(pool, dict) else {}


def processes_of(reply: Mapping[str, Any]) -> int:
    """How many processes a prefork worker has, or may have; 0: it is not prefork."""
    pool = pool_of(reply)
    processes = pool.get("processes")
    if "prefork" not in str(pool.get("implementation")) or not isinstance(processes, list):
        return 0
    return max(len(processes), int((reply.get("autoscaler") or {}).get("max") or 0))
