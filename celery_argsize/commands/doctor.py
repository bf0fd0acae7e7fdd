"""``celery argsize doctor``: prints a diagnosis, or shrinks the pools of live workers."""

from __future__ import annotations

import shutil
import sys

import click

from celery_argsize.commands import common
from celery_argsize.commands.common import fail
from celery_argsize.doctor.examine import LOOKS, SECONDS, diagnose, load, look_around
from celery_argsize.doctor.facts import Scope, Unavailable
from celery_argsize.doctor.judge.redis_clients import budget_for, live_pools, opened_by
from celery_argsize.doctor.redis_facts import FULL
from celery_argsize.doctor.shrink import apply_shrink, plan_shrink
from celery_argsize.doctor.text import COLORS, diagnosis_text
from celery_argsize.errors import ArgsizeError
from celery_argsize.words import printable


@common.command
@click.option(
    "--timeout",
    type=click.FloatRange(1, 300),
    default=SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long looking may take.",
)
@click.option(
    "--max-clients",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many clients the Redis takes.  [default: what it says]",
)
@click.option("--apply-pool-shrink", is_flag=True, help="Shrink the pools of live workers.")
@click.option("--yes", is_flag=True, help="Shrink without asking.")
@click.option("--quiet", is_flag=True, help="Leave out what is well.")
@common.as_json_option
def doctor(  # noqa: PLR0913 - options, as click passes them
    *,
    source: common.Source,
    timeout: float,
    max_clients: int | None,
    apply_pool_shrink: bool,
    yes: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Say what is wrong with the Redis, the settings, the workers and this machine.

    It only looks, unless --apply-pool-shrink is given. Ends with 0 if all is well,
    1 if something warns, 2 if something fails, 3 if something is unknown.

    Example: celery -A proj argsize doctor
    """
    if (apply_pool_shrink and as_json) or (yes and not apply_pool_shrink):
        message = "--apply-pool-shrink takes no --json, and --yes is for --apply-pool-shrink only"
        raise click.UsageError(message)
    if apply_pool_shrink:
        broken = load(source.app) if source.app else ""
        app = None if broken else source.app
        return shrink_pools(Scope(app, source.where, timeout, max_clients, broken), ask=not yes)
    with common.waiting("Looking"):
        diagnosis = diagnose(source.app, seconds=timeout, max_clients=max_clients, **source.where)
    if as_json:
        common.echo_json(diagnosis.to_json())
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for line in diagnosis_text(diagnosis, width=width, quiet=quiet).splitlines():
            sign, space, rest = line.partition(" ")
            if sign in COLORS:
                sign = click.style(sign, fg=COLORS[sign], bold=True)
            click.echo(sign + space + rest, color=common.colored())
    return diagnosis.exit_code


def shrink_pools(where: Scope, *, ask: bool) -> int:
    """Show how far each pool must shrink, ask, and shrink them. Returns the exit code."""
    with common.waiting("Asking live workers"):
        facts = look_around(where, {name: LOOKS[name] for name in ("redis", "workers")})
    try:
        workers, nodes = facts.workers.get(), facts.workers.get().live()
        servers = [server for server in facts.redis.get() if "messages" in server.roles]
        most = where.max_clients or max((server.maxclients or 0 for server in servers), default=0)
        budget = budget_for(facts, most or 1, nodes)
    except Unavailable as exc:
        hint = ". Stop a worker and try again, or raise its limit: CONFIG SET maxclients"
        return fail(ArgsizeError(f"{exc}{hint if FULL in str(exc) else ''}"))
    if workers.shared_names:
        return fail(
            ArgsizeError(f"more than one worker is called {printable(workers.shared_names[0])}: use -n NAME@%h")
        )
    if not most:
        return fail(ArgsizeError("how many clients the broker takes is not known: give --max-clients"))
    for name in workers.silent:
        click.echo(f"Note: {printable(name)} does not answer: what it opens is not counted.", err=True)
    plan = plan_shrink(nodes, budget)
    for name, size in plan.items():
        click.echo(f"{printable(name)}: {live_pools(nodes)[name][1]} → {size} processes")
    counts = opened_by(nodes, budget, plan)
    fits = all(count is not None and count < most for count in counts.values())
    each = [f"{'any number' if count is None else count} at {name}" for name, count in counts.items()]
    title = "Then" if plan else "Nothing to shrink" if fits else "No pool can shrink"
    still = "" if fits else " That is still too many: stop a worker, or let the Redis take more."
    click.echo(f"{title}: connections at most: {', '.join(each) or 'none'}, of {most:,} clients.{still}")
    question = "A task that begins in that moment may be lost (docs/connections.md). Shrink these pools now?"
    if plan and ask and not click.confirm(question, err=True):
        return common.EXIT_FOUND
    with common.waiting("Shrinking"):
        outcomes = apply_shrink(facts.app, plan) if plan else []
    for outcome in outcomes:
        click.echo(f"{printable(outcome.subject)}: {outcome.reason}")
    if failed := sum(outcome.verdict == "fail" for outcome in outcomes):
        return fail(ArgsizeError(f"{failed} of {len(plan)} pools did not shrink as planned"))
    if plan:
        click.echo("A worker that starts again has its old concurrency: change that as well.")
    return common.EXIT_FOUND if workers.silent or not fits else 0
