"""Shrinks the pools of live workers until their connections fit: by how much, and doing it."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_argsize.connections.model import items_of, totals
from celery_argsize.doctor.checks import Outcome, fail, ok
from celery_argsize.doctor.errors import why_not
from celery_argsize.doctor.judge.redis_clients import live_pools, opened_by
from celery_argsize.doctor.look.broker import Listener, connection_to
from celery_argsize.words import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery import Celery

    from celery_argsize.connections.budget import ConnectionBudget
    from celery_argsize.doctor.facts import Node

#: Seconds to wait for a reply.
REPLY: Final = 2.0


def plan_shrink(nodes: Sequence[Node], budget: ConnectionBudget) -> dict[str, int]:
    """Prefork worker → its new number of processes: in proportion, and at least 1."""
    sizes = {name: size for name, (pool, size) in live_pools(nodes).items() if pool == "prefork"}
    single = replace(budget.setup, workers=1, concurrency=1, pool="prefork")
    per_child = totals(item for item in items_of(single) if item.who == "pool child")
    opened, room, surplus = opened_by(nodes, budget), budget.max_clients - budget.reserve, 0
    for server, count in per_child.items():
        surplus = max(surplus, math.ceil(((opened[server] or 0) - room) / (count or 1)))
    plan = {**sizes}
    while surplus > 0 and (larger := [name for name in plan if plan[name] > 1]):
        plan[max(larger, key=lambda name: plan[name] / sizes[name])] -= 1
        surplus -= 1
    return {name: size for name, size in plan.items() if size < sizes[name]}


def apply_shrink(app: Celery, plan: Mapping[str, int], seconds: float = 30.0) -> list[Outcome]:
    """Shrink each pool within *seconds*. A broker that fails is an outcome too."""
    outcomes: dict[str, Outcome] = {}
    try:
        # the app's own connections would wait for ever for a broker that is gone
        with connection_to(app, REPLY) as connection, Listener(app, connection) as listener:
            for name, size in plan.items():
                pool = _Pool(listener, name, time.monotonic() + seconds)
                outcomes[name] = pool.shrink(max(size, 1))
    except Exception as exc:  # noqa: BLE001 - whatever kombu raises
        failure = fail(f"the broker could not be asked: {why_not(exc)}")
        outcomes = {**dict.fromkeys(plan, failure), **outcomes}
    return [outcome._replace(subject=name) for name, outcome in outcomes.items()]


class _Pool(NamedTuple):
    """The pool of one live worker, by remote control."""

    listener: Listener
    worker: str
    deadline: float

    def shrink(self, goal: int) -> Outcome:
        """Shrink it to *goal* processes."""
        scaler = self.ask("stats").get("autoscaler")
        # another worker of this name may answer later
        self.listener.listen(lambda: False, time.monotonic() + REPLY)
        before = size = self.size(math.inf)
        if scaler and size:
            reply = self.ask("autoscale", max=goal, min=min(scaler["min"], goal))
            if "error" in reply:
                return fail(f"refused: {printable(reply['error'])}")
            self.size(goal)
            return ok(f"autoscales up to {goal} now, instead of {scaler['max']}")
        while size > goal and time.monotonic() < self.deadline:
            # one at a time: billiard may give up midway through several
            error = self.ask("pool_shrink", n=1).get("error")
            if not error:
                size = self.size(size - 1)
            elif "All processes busy" in str(error):
                time.sleep(0.1)
            else:
                return fail(f"{before} → {size} processes so far, refused: {printable(error)}")
        if not size:
            return fail("did not answer, or shares its name with another worker")
        change = f"{before} → {size} processes"
        return fail(f"{change} so far, the others are busy: run it again") if size > goal else ok(change)

    def size(self, goal: float) -> int:
        """Its processes, once they are *goal* or fewer, or time is up; 0: no answer."""
        while True:
            size = len((self.ask("stats").get("pool") or {}).get("processes") or ())
            if size <= goal or time.monotonic() > self.deadline:
                return size
            time.sleep(0.1)

    def ask(self, question: str, **arguments: int) -> Mapping[str, Any]:
        """The worker's reply; empty if there is none, or another worker has its name."""
        replies = self.listener.replies[question]
        replies.pop(self.worker, None)
        self.listener.ask({question: arguments}, [self.worker], seconds=REPLY)
        self.listener.listen(lambda: self.worker in replies, time.monotonic() + REPLY)
        reply = {} if self.worker in self.listener.shared_names else replies.get(self.worker)
        return reply if isinstance(reply, dict) else {}
