"""Shrinks the pools of live workers until their connections fit: how far, and doing it by remote control."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_argsize.connections.model import items_of, totals
from celery_argsize.doctor.checks import Outcome, fail, ok
from celery_argsize.doctor.errors import why_not
from celery_argsize.doctor.judge.redis_clients import live_pools, opened_by
from celery_argsize.doctor.look.broker import connection_to
from celery_argsize.doctor.look.listener import Listener
from celery_argsize.words import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery import Celery

    from celery_argsize.connections.budget import ConnectionBudget
    from celery_argsize.doctor.facts import Node

#: Seconds to wait for an answer, and for that of another worker of the same name.
ANSWER: Final = 2.0


def plan_shrink(nodes: Sequence[Node], budget: ConnectionBudget) -> dict[str, int]:
    """Prefork worker → its processes when all fits; in proportion, and never below one."""
    sizes = {name: size for name, (pool, size) in live_pools(nodes).items() if pool == "prefork"}
    items = items_of(replace(budget.setup, workers=1, concurrency=1, pool="prefork"))
    child = totals(item for item in items if item.who == "pool child")
    opened, room = opened_by(nodes, budget), budget.max_clients - budget.reserve
    excess = [-((room - (opened[server] or 0)) // each) for server, each in child.items() if each]
    plan = {**sizes}
    for _ in range(max(excess, default=0) if plan else 0):
        name = max(plan, key=lambda name: (plan[name] > 1, plan[name] / sizes[name]))
        plan[name] -= plan[name] > 1
    return {name: to for name, to in plan.items() if to < sizes[name]}


def apply_shrink(app: Celery, plan: Mapping[str, int], seconds: float = 30.0) -> list[Outcome]:
    """Shrink each pool within *seconds*; what came of each. A broker that fails is an outcome too."""
    outcomes: dict[str, Outcome] = {}
    try:
        # the app's own pool would wait for ever for a broker that is gone
        with connection_to(app, ANSWER) as connection, Listener(app, connection) as listener:
            for name, to in plan.items():
                outcomes[name] = _Worker(listener, name).shrink(max(to, 1), time.monotonic() + seconds)
    except Exception as exc:  # noqa: BLE001 - whatever kombu raises
        why = f"the broker could not be asked: {why_not(exc)}"
        outcomes = {**dict.fromkeys(plan, fail(why, fix="")), **outcomes}
    return [outcome._replace(subject=name) for name, outcome in outcomes.items()]


class _Worker(NamedTuple):
    """One live worker, by remote control."""

    listener: Listener
    name: str

    def ask(self, question: str, **arguments: int) -> Mapping[str, Any]:
        """Its answer; empty if there is none, or if another worker has its name."""
        replies = self.listener.replies[question]
        replies.pop(self.name, None)
        self.listener.ask({question: arguments}, [self.name], seconds=ANSWER)
        self.listener.listen(lambda: self.name in replies, time.monotonic() + ANSWER)
        reply = replies.get(self.name)
        return reply if isinstance(reply, dict) and self.name not in self.listener.twice else {}

    def size(self, at_most: int, deadline: float) -> int:
        """How many processes it has, once they are *at_most* or time is up; 0: no answer."""
        while True:
            size = len((self.ask("stats").get("pool") or {}).get("processes") or ())
            if size <= at_most or time.monotonic() > deadline:
                return size
            time.sleep(0.1)

    def shrink(self, to: int, deadline: float) -> Outcome:
        """Shrink its pool to *to* processes until *deadline*; what came of it."""
        scaler, error = self.ask("stats").get("autoscaler"), ""
        self.listener.listen(lambda: self.name in self.listener.twice, time.monotonic() + ANSWER)
        now = size = self.size(0, 0.0)
        if scaler and size:
            error = str(self.ask("autoscale", max=to, min=min(scaler["min"], to)).get("error", ""))
            self.size(to, deadline)
            refused = fail(f"refused: {printable(error)}", fix="")
            return refused if error else ok(f"autoscales up to {to} now, instead of {scaler['max']}")
        while size > to and not error and time.monotonic() < deadline:
            # One at a time: billiard gives up in the midst of several if too few are idle.
            error = str(self.ask("pool_shrink", n=1).get("error", ""))
            size = self.size(size - 1, time.monotonic() if error else deadline)
            error = "" if "All processes busy" in error else error
        if not size:
            return fail("did not answer, or shares its name with another worker", fix="")
        if size > to:
            why = f"refused: {printable(error)}" if error else "the others are busy: run it again"
            return fail(f"{now} → {size} processes so far, {why}", fix="")
        return ok(f"{now} → {size} processes")
