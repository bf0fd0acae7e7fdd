"""``celery argsize doctor``: what is wrong with the Redis, the settings, the workers, the monitor, this machine."""

from __future__ import annotations

import shutil
import sys

import click

from celery_argsize.commands import common
from celery_argsize.commands.shrinking import shrink_pools
from celery_argsize.doctor.examine import SECONDS, diagnose
from celery_argsize.doctor.facts import Scope
from celery_argsize.doctor.text import COLORS, diagnosis_text


@common.command
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
    """Say what is wrong with the Redis, the settings, the live workers and this machine, and what to type.

    It only looks, unless --apply-pool-shrink is given. Ends with 0 if all is well, 1 if something warns, 2 if something
    fails, 3 if something could not be looked at.

    Example: celery -A proj argsize doctor
    """
    if apply_pool_shrink and as_json:
        message = "--apply-pool-shrink and --json cannot be given together"
        raise click.UsageError(message)
    if yes and not apply_pool_shrink:
        message = "--yes is for --apply-pool-shrink; nothing else is asked"
        raise click.UsageError(message)
    if apply_pool_shrink:
        return shrink_pools(source.app, Scope(source.app, source.where, timeout, max_clients), ask=not yes)
    with common.progress("Looking") as advance:
        diagnosis = diagnose(source.app, seconds=timeout, max_clients=max_clients, progress=advance, **source.where)
    if as_json:
        common.echo_json(diagnosis.to_json())
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        _show(diagnosis_text(diagnosis, width=width, quiet=quiet), color=common.colored())
    return diagnosis.exit_code


def _show(text: str, *, color: bool | None) -> None:
    for line in text.splitlines():
        sign, space, rest = line.partition(" ")
        shade = COLORS.get(sign)
        click.echo((click.style(sign, fg=shade, bold=True) if shade else sign) + space + rest, color=color)
