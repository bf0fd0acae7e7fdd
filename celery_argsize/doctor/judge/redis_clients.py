"""Judges of the clients of a Redis: those there are, and those that can come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from celery_argsize.connections.budget import connection_budget
from celery_argsize.connections.model import GREEN, live_items, totals
from celery_argsize.doctor.app import setting, transport_option
from celery_argsize.doctor.checks import Outcome, fail, ok, unknown, warn
from celery_argsize.doctor.facts import Unavailable
from celery_argsize.doctor.redis_facts import FULL, NO_RIGHT, RIGHTS
from celery_argsize.errors import ConfigError
from celery_argsize.words import counted, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from celery_argsize.connections.budget import ConnectionBudget
    from celery_argsize.doctor.facts import Facts, Node
    from celery_argsize.doctor.redis_facts import Role, ServerFacts

#: Parts of a limit, of clients or memory, from which a check warns and fails.
NEARLY_FULL: Final = 0.80
NO_ROOM: Final = 0.95
#: Groups of clients that are shown.
SHOWN: Final = 6
#: Clients of a small hosted plan. With more, connections need no bound.
SMALL: Final = 100


def each_server(
    judge: Callable[[Facts, ServerFacts], Iterable[Outcome]], role: Role | None = None
) -> Callable[[Facts], list[Outcome]]:
    """The judge of a check: *judge* for each server that has *role*."""

    def judge_all(facts: Facts) -> list[Outcome]:
        outcomes = []
        for server in facts.redis.get():
            if role is None or role in server.roles:
                try:
                    judged = [*judge(facts, server)]
                except Unavailable as exc:
                    allow = f"ACL SETUSER NAME {RIGHTS}" if str(exc) == NO_RIGHT else ""
                    judged = [unknown(str(exc), fix=allow)]
                outcomes += [each._replace(subject=each.subject or server.subject) for each in judged]
        return outcomes

    return judge_all


def number(server: ServerFacts, name: str) -> int:
    """The number that INFO has under *name*; raises ``Unavailable`` without it."""
    server.need("info")
    value = server.info.get(name)
    if not isinstance(value, (int, float)):
        raise Unavailable(f"its INFO has no {name}")  # noqa: EM102, TRY003
    return int(value)


def clients(_: Facts, server: ServerFacts) -> Iterable[Outcome]:
    """Judge how many clients there are."""
    larger = f"{server.cli} CONFIG SET maxclients NUMBER  # or a larger plan"
    fewer = "celery -A proj argsize doctor --apply-pool-shrink"
    if server.error == FULL:
        fix = f"# stop a worker first\n{larger}\n{fewer}"
        yield fail("whoever connects is refused", FULL, fix=fix)
        return
    most, count = _most(server), sum(group.clients for group in server.holders)
    if "holders" in server.missed:
        count = number(server, "connected_clients") - 1
    figure = f"{count:,} of {most:,} clients"
    fix = "\n".join([*_held(server), fewer, larger])
    if count >= most * NO_ROOM:
        yield fail("the next few are refused (max number of clients reached)", figure, fix=fix)
    elif count >= most * NEARLY_FULL:
        yield warn("it is nearly out of clients", figure, fix=fix)
    else:
        yield ok("there is room", figure)


def _held(server: ServerFacts) -> list[str]:
    """A table of who holds most connections; empty where that is not known."""
    rows = [("who holds them:", "name", "from", "what they do")]
    groups = server.holders[:SHOWN]
    rows += [(str(count), name or "-", address or "-", activity) for count, name, address, activity in groups]
    return [line.strip() for line in table(rows, right=False)] if server.holders else []


def _most(server: ServerFacts) -> int:
    server.need("info")
    if not server.maxclients:
        raise Unavailable("it does not say its maxclients")  # noqa: EM101, TRY003
    return server.maxclients


def forecast(facts: Facts, server: ServerFacts) -> Iterable[Outcome]:
    """Judge how many clients the configuration can open."""
    most, nodes = _most(server), facts.workers.value.nodes if facts.workers.value else ()
    budget = budget_for(facts, most, nodes)
    opened = opened_by(nodes, budget) if nodes else budget.servers
    count = opened.get(server.places[0].address, 0)
    workers = f"one worker is assumed, with concurrency {budget.setup.concurrency}"
    if nodes:
        at_once = sum(size for _, size in live_pools(nodes).values())
        workers = f"{counted(len(nodes), 'live worker')}, {at_once:,} tasks at once"
    shown = "any number" if count is None else f"{count:,} at most"
    figure = f"{shown} of {most:,} clients ({workers}; 1 process sending)"
    if count is None and most > SMALL:
        yield ok("nothing bounds them, but there is much room", figure)
    elif count is None or count + budget.reserve > most:
        yield warn("this can open more than the Redis takes", figure, fix=_fitting(facts, budget))
    else:
        yield ok("all that this can open fits", figure)


def live_pools(nodes: Iterable[Node]) -> dict[str, tuple[str, int]]:
    """Worker → its pool, and how many tasks it can run at once."""
    pools = {}
    for node in nodes:
        autoscaler = node.stats.get("autoscaler") or {}
        pools[node.name] = (node.pool, max(node.concurrency, autoscaler.get("max") or 0))
    return pools


def opened_by(
    nodes: Iterable[Node], budget: ConnectionBudget, plan: Mapping[str, int] | None = None
) -> dict[str, int | None]:
    """Redis → connections at most of *nodes* once *plan* is done; ``None``: any number."""
    sizes = plan or {}
    pools = [(pool, sizes.get(name, size)) for name, (pool, size) in live_pools(nodes).items()]
    return totals(live_items(budget.setup, pools))


def budget_for(facts: Facts, most: int, nodes: Iterable[Node]) -> ConnectionBudget:
    """The budget of the app with *nodes* as workers; raises ``Unavailable`` where there is none."""
    pools = live_pools(nodes).values()
    concurrency = max((size for _, size in pools), default=0) or None
    pool = next((pool for pool, _ in pools if pool in GREEN), None)
    try:
        return connection_budget(facts.app, most, max(1, len(pools)), concurrency, pool=pool)
    except ConfigError as exc:
        raise Unavailable(str(exc)) from None


def _fitting(facts: Facts, budget: ConnectionBudget) -> str:
    """Lines with which all fits."""
    lines = []
    for name, value in (budget.settings or {}).items():
        line = transport_option if name == "max_connections" else setting
        lines.append(line(facts.app, name, value))
    return "\n".join(lines) or "# no settings fit, see docs/connections.md"
