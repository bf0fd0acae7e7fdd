"""Judges of Redis' clients: how many there are, who they are, how many this configuration can open, who was refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.connection_fit import fitting, needed, needed_for_results, remedies
from celery_argsize.connection_model import GREEN, items_of
from celery_argsize.connections import connection_budget
from celery_argsize.doctor.checks import NotKnown, Outcome, fail, ok, warn
from celery_argsize.doctor.redis_judging import NEARLY_FULL, NO_ROOM, cli, each_server, number, of_server, uptime
from celery_argsize.doctor.setting_values import live_nodes, transport_option
from celery_argsize.doctor.spelling import setting
from celery_argsize.errors import ConfigError
from celery_argsize.shrink import forecast as forecast_live
from celery_argsize.table import table

if TYPE_CHECKING:
    from celery_argsize.connections import ConnectionBudget
    from celery_argsize.doctor.facts import Facts
    from celery_argsize.doctor.redis_facts import ServerFacts
    from celery_argsize.doctor.redis_holders import Holders

__all__ = ["clients", "forecast", "rejected"]

#: Groups of clients that are shown: the rest are few.
SHOWN: Final = 6

#: Up to this many clients, a plan is so small that connections without a bound are going to meet it: hosted plans of
#: 30 to 40, by field reports. Redis' own default is 10,000.
SMALL: Final = 100

#: From a field report of a Redis that ran out of clients.
FEW: Final = 4


def clients(facts: Facts) -> list[Outcome]:
    """connected_clients against maxclients."""
    full = [_full(facts, server) for server in facts.redis.get() if server.full]
    others = each_server(facts, lambda server: _clients_of(facts, server), "info")
    return full + [one for one in others if one.subject not in {refused.subject for refused in full}]


def _full(facts: Facts, server: ServerFacts) -> Outcome:
    reason = "it has no place for another client: workers that reconnect, and whoever sends a task, are refused"
    return of_server(server, fail(reason, "max number of clients reached", fix=_fewer(facts, server)))


def _clients_of(facts: Facts, server: ServerFacts) -> Outcome:
    most = server.maxclients
    if not most:
        server.need("config")
        message = "it does not say its maxclients"
        raise NotKnown(message)
    listed = sum(one.clients for one in server.holders)
    count = max(0, number(server, "connected_clients") - 1) if "clients" in server.missed else listed
    figure = f"{count:,} of {most:,} clients"
    held = _held(facts, server)
    if count < most * NEARLY_FULL:
        return ok(_first(facts, server), figure)
    fix = "\n".join([*held, _fewer(facts, server)])
    if count >= most * NO_ROOM:
        return fail("the next few clients are refused: max number of clients reached", figure, fix=fix)
    return warn("it is nearly out of clients; a restart of a worker opens more at once", figure, fix=fix)


def _first(facts: Facts, server: ServerFacts) -> str:
    """Who has the most of them, in a few words."""
    if not server.holders:
        return "there is room"
    one = server.holders[0]
    who = ", ".join(filter(None, (one.name, one.address, _process(facts, one), one.does)))
    return f"there is room; the most alike: {one.clients} ({who})"


def _held(facts: Facts, server: ServerFacts) -> list[str]:
    """Who holds them, as lines of a table."""
    if not server.holders:
        why, allowed = server.missed.get("clients", ("", ""))
        return [f"who holds them is not known: {why}", *([allowed] if allowed else [])] if why else []
    rows = [("who holds them:", "name", "from", "process", "what they do")]
    rows += [
        (f"{one.clients:,}", one.name or "-", one.address or "-", _process(facts, one) or "-", one.does)
        for one in server.holders[:SHOWN]
    ]
    rest = sum(one.clients for one in server.holders[SHOWN:])
    rows += [(f"{rest:,}", "others", "", "", "")] if rest else []
    return [line.strip() for line in table(rows, right=False)]


def _process(facts: Facts, one: Holders) -> str:
    """The workers whose processes have these connections; else the pids."""
    workers = facts.workers.found
    of = {pid: node.name for node in workers.nodes for pid in (node.pid, *node.processes)} if workers else {}
    names = [of.get(pid, f"pid {pid}") for pid in one.pids]
    shown = list(dict.fromkeys(names))
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")  # noqa: PLR2004 - a few


def _fewer(facts: Facts, server: ServerFacts) -> str:
    """The way out of field reports: fewer connections now, then settings, then a larger Redis."""
    most = server.maxclients
    larger = f"{cli(server)} CONFIG SET maxclients {max(2 * most, 100) if most else 'NUMBER'}"
    larger += (
        "  # or a plan with more clients" if most else "  # above what CONFIG GET maxclients says; or a larger plan"
    )
    shrink = "celery -A proj argsize doctor --apply-pool-shrink"
    settings = [*_ceilings(facts), f"celery -A proj worker --concurrency={FEW}"]
    if live_nodes(facts) and not server.full:
        return "\n".join([shrink, *settings, f"{cli(server)} CLIENT LIST", larger])
    stop = "# stop a worker, or whatever else is connected: those below need a connection themselves"
    return "\n".join([stop, larger, f"{cli(server)} CLIENT LIST", shrink, *settings])


def _ceilings(facts: Facts) -> list[str]:
    """Lines that bound the three pools to few, but not to fewer than its tasks need: what is beyond fails."""
    if facts.where.app is None:
        return [setting(None, "broker_pool_limit", FEW)]
    try:
        setup = _budget(facts, SMALL).setup
    except NotKnown:
        return [setting(facts.where.app, "broker_pool_limit", FEW)]
    return _pools(facts, FEW, max(FEW, needed(setup)), max(FEW, needed_for_results(setup)))


def _pools(facts: Facts, publishing: int | None, broker: int | None, results: int | None) -> list[str]:
    """Lines that bound the three pools, or those of them that matter; what else is in the app's options stays."""
    app = facts.app
    lines = (
        (publishing, setting(app, "broker_pool_limit", publishing)),
        (broker, transport_option(facts, "max_connections", broker)),
        (results, setting(app, "redis_max_connections", results)),
    )
    return [line for bound, line in lines if bound is not None]


def _budget(facts: Facts, most: int) -> ConnectionBudget:
    """What the app's configuration can open, with the concurrency and the pool of the live workers, if any."""
    nodes = live_nodes(facts)
    concurrency = max((node.concurrency for node in nodes), default=None) or None
    pool = next((node.pool for node in nodes if node.pool in GREEN), None)
    try:
        return connection_budget(facts.app, most, max(1, len(nodes)), concurrency, pool=pool)
    except ConfigError as exc:
        raise NotKnown(str(exc)) from None


#: Which of ``Setup``'s servers has which role.
_FIELDS: Final = {"messages": ("read", "write"), "results": ("result",)}


def _leading_to(server: ServerFacts, budget: ConnectionBudget) -> ConnectionBudget:
    """*budget*, if *server* were in use: it may be one that takes over, of a list of brokers."""
    fields: dict[str, Any] = {
        name: server.address
        for names in map(_FIELDS.get, server.roles)
        if names and server.address not in [getattr(budget.setup, name) for name in names]
        for name in names
    }
    if not fields:
        return budget
    setup = replace(budget.setup, **fields)
    items, settings = items_of(setup), fitting(setup, budget.max_clients - budget.reserve)
    return replace(budget, setup=setup, items=items, settings=settings)


def forecast(facts: Facts) -> list[Outcome]:
    """What the configuration can open at most, against maxclients."""
    nodes = live_nodes(facts)
    live = {node.name: node.stats for node in nodes}

    def judge(server: ServerFacts) -> Outcome:
        if not server.maxclients:
            server.need("config")
            message = "it does not say its maxclients"
            raise NotKnown(message)
        budget = _leading_to(server, _budget(facts, server.maxclients))
        servers = forecast_live(live, budget) if live else budget.servers
        if server.address not in servers:
            return ok("nothing of this configuration connects to it", f"0 of {server.maxclients:,} clients")
        total = sum(node.concurrency for node in nodes)
        counted = f"{len(nodes):,} live worker{'s' * (len(nodes) > 1)}, {total:,} tasks at once" if nodes else ""
        return _forecast_of(budget, servers[server.address], counted, fix=_fitting(facts, budget))

    return each_server(facts, judge, "info")


def _fitting(facts: Facts, budget: ConnectionBudget) -> str:
    """Lines with which all fits."""
    found, app = budget.settings, facts.where.app
    if found is None:
        ways = remedies(budget.setup, budget.max_clients, budget.reserve)
        return "\n".join(["no settings fit; each of these would:", *ways])
    lines = [
        f"{setting(app, 'worker_concurrency', found.concurrency)}  # --concurrency on the command line wins",
        *_pools(facts, found.broker_pool_limit, found.max_connections, found.redis_max_connections),
        *([setting(app, "result_backend_thread_safe", True)] if found.result_backend_thread_safe else []),  # noqa: FBT003
    ]
    return "\n".join(lines)


def _forecast_of(budget: ConnectionBudget, most: int | None, live: str, *, fix: str) -> Outcome:
    room, setup = budget.max_clients, budget.setup
    workers = live or f"one worker is assumed, with concurrency {setup.concurrency}"
    counted = f"{workers}; {setup.producers} process{'es' * (setup.producers != 1)} sending"
    figure = f"{'any number' if most is None else f'{most:,} at most'} of {room:,} clients ({counted})"
    if most is None:
        if room > SMALL:
            return ok("nothing bounds them, but there is much room", figure)
        return warn("nothing bounds how many connections this configuration opens", figure, fix=fix)
    if most + budget.reserve > room:
        reason = "under load, this configuration opens more connections than the Redis takes"
        return warn(reason, figure, fix=fix)
    return ok("all that this configuration can open fits", figure)


def rejected(facts: Facts) -> list[Outcome]:
    """rejected_connections."""
    return each_server(facts, _rejected_of, "info")


def _rejected_of(server: ServerFacts) -> Outcome:
    count = number(server, "rejected_connections")
    if not count:
        return ok("nobody was refused", uptime(server))
    reason = "clients were refused, as there were maxclients of them already"
    fix = f"see redis.clients and redis.forecast\n{cli(server)} CONFIG RESETSTAT  # once it is mended: counts anew"
    return warn(reason, f"{count:,} {uptime(server)}", fix=fix)
