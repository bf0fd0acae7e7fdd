"""``celery argsize doctor``: what is wrong with the Redis, the settings, the workers, the monitor, this machine."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from celery_argsize.commands.common import (
    app_of,
    as_json_option,
    colored,
    echo_json,
    failing,
    progress,
    waiting,
    where_of,
    where_options,
)
from celery_argsize.connections import connection_budget
from celery_argsize.doctor.checks import NotKnown
from celery_argsize.doctor.diagnosis import EXIT_CODES
from celery_argsize.doctor.examine import LOOKS, SECONDS, diagnose, look_around
from celery_argsize.doctor.facts import Where
from celery_argsize.doctor.text import COLORS, diagnosis_text
from celery_argsize.shrink import apply_shrink, forecast, plan_shrink

if TYPE_CHECKING:
    from celery import Celery

    from celery_argsize.connections import ConnectionBudget
    from celery_argsize.doctor.facts import Facts

__all__ = ["doctor"]

_FAILED: Final = EXIT_CODES["fail"]

_QUESTION: Final = (
    "A process that runs a task ends that first; one that takes a task in that very moment may lose it "
    "(docs/connections.md). Shrink these pools now?"
)


@click.command()
@where_options
@click.option(
    "--timeout",
    type=click.FloatRange(1, 300),
    default=SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long looking may take, in all.",
)
@click.option(
    "--max-clients",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many clients the Redis takes.  [default: what it says; hosted ones do not always]",
)
@click.option("--apply-pool-shrink", is_flag=True, help="Shrink the pools of live workers until their clients fit.")
@click.option("--yes", is_flag=True, help="Do not ask before that.")
@click.option("--quiet", is_flag=True, help="Leave out what is well.")
@as_json_option
@click.pass_context
def doctor(  # noqa: PLR0913 - options, as click passes them
    context: click.Context,
    /,
    *,
    timeout: float,
    max_clients: int | None,
    apply_pool_shrink: bool,
    yes: bool,
    quiet: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Say what is wrong with the Redis, the settings, the live workers and this machine, and what to type.

    It only looks, unless --apply-pool-shrink is given. Ends with 0 if all is well, 1 if something warns, 2 if something
    fails, 3 if something could not be looked at.

    Example: celery -A proj argsize doctor
    """
    app = app_of(context)
    if apply_pool_shrink and as_json:
        message = "--apply-pool-shrink and --json cannot be given together"
        raise click.UsageError(message)
    if yes and not apply_pool_shrink:
        message = "--yes is for --apply-pool-shrink; nothing else is asked"
        raise click.UsageError(message)
    with failing(context):
        if apply_pool_shrink:
            context.exit(_shrink(app, Where(app, where_of(where), timeout, max_clients), ask=not yes))
        with progress("Looking") as advance:
            diagnosis = diagnose(app, seconds=timeout, max_clients=max_clients, progress=advance, **where_of(where))
    if as_json:
        echo_json(diagnosis.to_json())
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        _show(diagnosis_text(diagnosis, width=width, quiet=quiet), color=colored(context))
    context.exit(diagnosis.exit_code)


def _show(text: str, *, color: bool | None) -> None:
    for line in text.splitlines():
        sign, space, rest = line.partition(" ")
        shade = COLORS.get(sign)
        click.echo((click.style(sign, fg=shade, bold=True) if shade else sign) + space + rest, color=color)


def _shrink(app: Celery | None, where: Where, *, ask: bool) -> int:
    """Say how far each live worker's pool is to shrink, ask, and do it; the exit code.

    Raises:
        ConfigError: a number that cannot work.
    """
    if app is None:
        message = "--apply-pool-shrink needs the app of the workers: celery -A proj argsize doctor --apply-pool-shrink"
        raise click.UsageError(message)
    app.finalize()
    with waiting("Asking live workers"):
        facts = look_around(where, {name: LOOKS[name] for name in ("redis", "workers")})
    try:
        stats = {node.name: node.stats for node in facts.workers.get().nodes}
        budget = connection_budget(app, _max_clients(facts))
    except NotKnown as exc:
        click.echo(f"Error: {exc}", err=True)
        return _FAILED
    plan = plan_shrink(stats, budget)
    if not plan:
        click.echo(f"Nothing to shrink: {_most(forecast(stats, budget), budget)}.")
        return 0
    for step in plan:
        click.echo(f"{step.node}: {step.now} → {step.to} processes")
    click.echo(f"Now: {_most(forecast(stats, budget), budget)}.")
    click.echo(f"Then: {_most(forecast(stats, budget, plan), budget)}.")
    if ask and not click.confirm(_QUESTION, err=True):
        return 0
    with waiting("Shrinking"):
        outcomes = apply_shrink(app, plan)
    for node, outcome in outcomes.items():
        click.echo(f"{node}: {outcome}")
    click.echo(
        "A worker that starts again has the concurrency it is started with: see the settings of connection_budget."
    )
    return 0


def _max_clients(facts: Facts) -> int:
    """How many clients the Redis of the messages takes.

    Raises:
        NotKnown: nobody says.
    """
    if facts.where.max_clients is not None:
        return facts.where.max_clients
    told = [one.maxclients for one in facts.redis.get() if "messages" in one.roles and one.maxclients is not None]
    if not told:
        message = "it is not known how many clients the broker takes: say so with --max-clients"
        raise NotKnown(message)
    return min(told)


def _most(servers: dict[str, int | None], budget: ConnectionBudget) -> str:
    """*servers*, as words."""
    each = [f"{'unbounded' if most is None else f'{most:,}'} at {server}" for server, most in servers.items()]
    return f"connections at most: {', '.join(each) or 'none'}, of {budget.max_clients:,} clients that it takes"
