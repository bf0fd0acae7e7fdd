"""``celery argsize doctor --apply-pool-shrink``: says how far pools are to shrink, asks, and says what came of it.

What is to shrink, and how, is the business of ``connections.shrink`` and ``doctor.shrink``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from celery_argsize.commands.common import EXIT_FOUND, EXIT_USAGE, waiting
from celery_argsize.connections.budget import connection_budget
from celery_argsize.connections.shrink import forecast, plan_shrink
from celery_argsize.doctor.examine import LOOKS, load, look_around
from celery_argsize.doctor.facts import Unavailable
from celery_argsize.doctor.shrink import apply_shrink
from celery_argsize.words import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

    from celery_argsize.connections.budget import ConnectionBudget
    from celery_argsize.connections.shrink import Shrink
    from celery_argsize.doctor.facts import Facts, Scope, WorkerFacts

#: All fits; it does not, or nobody knows; it could not be done.
_FITS: Final = 0
_TOO_MANY: Final = EXIT_FOUND
_FAILED: Final = EXIT_USAGE

_QUESTION: Final = (
    "A process that runs a task ends that first; one that takes a task in that very moment may lose it "
    "(docs/connections.md). Shrink these pools now?"
)
_FULL: Final = (
    "While it is full, no worker can be told to shrink. Stop a worker, or something else with many clients, and try "
    "again; or let it take more: redis-cli CONFIG SET maxclients N (which needs a place as well), or a larger plan."
)
_STILL: Final = (
    "That is still too many: stop a worker, or let the Redis take more (CONFIG SET maxclients, a larger plan)."
)
_AFTER: Final = (
    "A worker that starts again has the concurrency it is started with: see the settings of connection_budget."
)


def shrink_pools(app: Celery | None, where: Scope, *, ask: bool) -> int:
    """Say how far each live worker's pool is to shrink, ask, and do it; the exit code.

    Raises:
        ConfigError: a number that cannot work.
    """
    if app is None:
        message = "--apply-pool-shrink needs the app of the workers: celery -A proj argsize doctor --apply-pool-shrink"
        raise click.UsageError(message)
    if broken := load(app):
        return _failed(f"the app cannot be loaded: {broken}")
    with waiting("Asking live workers"):
        facts = look_around(where, {name: LOOKS[name] for name in ("redis", "workers")})
    try:
        workers = _distinct(facts)
        budget = connection_budget(app, _max_clients(facts))
    except Unavailable as exc:
        return _failed(str(exc))
    stats = {node.name: node.stats for node in workers.nodes if node.stats}
    plan = plan_shrink(stats, budget)
    code = max(_heard(workers), _announce(stats, budget, plan))
    if not plan:
        return code
    if ask and not click.confirm(_QUESTION, err=True):
        return _TOO_MANY
    return _apply(app, plan) or code


def _heard(workers: WorkerFacts) -> int:
    """Say which workers are not counted."""
    silent = sorted([*workers.silent, *(node.name for node in workers.nodes if not node.stats)])
    for name in silent:
        click.echo(f"Note: {printable(name)} does not answer: what it opens is not counted.", err=True)
    return _TOO_MANY if silent else _FITS


def _announce(stats: Mapping[str, Any], budget: ConnectionBudget, plan: list[Shrink]) -> int:
    """Say what is to be done, and what comes of it."""
    now, then = forecast(stats, budget), forecast(stats, budget, plan)
    fits = _fits(then, budget)
    for step in plan:
        click.echo(f"{printable(step.node)}: {step.now} → {step.to} processes")
    if plan:
        click.echo(f"Now: {_most(now, budget)}.")
        click.echo(f"Then: {_most(then, budget)}.")
    else:
        click.echo(f"{'Nothing to shrink' if fits else 'No pool can shrink'}: {_most(now, budget)}.")
    if fits:
        return _FITS
    click.echo(_STILL)
    return _TOO_MANY


def _apply(app: Celery, plan: list[Shrink]) -> int:
    """Shrink the pools, and say what came of it."""
    with waiting("Shrinking"):
        outcomes = apply_shrink(app, plan)
    for outcome in outcomes:
        click.echo(f"{printable(outcome.node)}: {outcome.text}")
    missed = [outcome.text for outcome in outcomes if not outcome.done]
    if len(missed) < len(outcomes):
        click.echo(_AFTER)
    return _failed(f"{len(missed)} of {len(plan)} pools did not shrink as planned", *missed) if missed else _FITS


def _failed(why: str, *more: str) -> int:
    click.echo(f"Error: {why}", err=True)
    if any("max number of clients" in text for text in (why, *more)):
        click.echo(_FULL, err=True)
    return _FAILED


def _distinct(facts: Facts) -> WorkerFacts:
    """The live workers, each with a name of its own.

    Raises:
        Unavailable: none answers, or an order for one would go to another as well.
    """
    workers = facts.workers.get()
    workers.live()
    if workers.twice:
        names = ", ".join(map(printable, workers.twice))
        message = (
            f"more than one worker is called {names}: an order for one goes to all of them. "
            "Start each with a name of its own: celery -A proj worker -n NAME@%h"
        )
        raise Unavailable(message)
    return workers


def _max_clients(facts: Facts) -> int:
    """How many clients the Redis of the messages takes.

    Raises:
        Unavailable: nobody says.
    """
    if facts.where.max_clients is not None:
        return facts.where.max_clients
    told = [one.maxclients for one in facts.redis.get() if "messages" in one.roles and one.maxclients is not None]
    if not told:
        message = "it is not known how many clients the broker takes: say so with --max-clients"
        raise Unavailable(message)
    return min(told)


def _fits(servers: dict[str, int | None], budget: ConnectionBudget) -> bool:
    room = budget.max_clients - budget.reserve
    return all(most is not None and most <= room for most in servers.values())


def _most(servers: dict[str, int | None], budget: ConnectionBudget) -> str:
    """*servers*, as words."""
    each = [f"{'unbounded' if most is None else f'{most:,}'} at {server}" for server, most in servers.items()]
    return f"connections at most: {', '.join(each) or 'none'}, of {budget.max_clients:,} clients that it takes"
