"""``celery argsize reset``: forget what was measured."""

from __future__ import annotations

import click

from celery_argsize.api.reset import reset_metrics
from celery_argsize.commands import common


@common.command
@click.option("--task", help="Only this task.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(*, source: common.Source, task: str | None, yes: bool) -> int:
    """Forget what was measured, to start afresh after a change.

    Example: celery -A proj argsize reset --task music.scan --yes
    """
    if not yes:
        click.confirm(f"Forget the figures of {task or 'all tasks'}?", abort=True, err=True)
    with common.waiting("Asking workers to write what they have"):
        result = reset_metrics(source.app, task=task, **source.where)
    click.echo(str(result))
    return common.EXIT_NOTHING_YET if result.forgotten == 0 else 0
