"""``celery argsize report``: what was measured, and the limit that follows from it. The check script shows the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from celery_argsize.api import get_size_summary
from celery_argsize.commands.common import (
    EXIT_NOTHING_YET,
    app_of,
    as_json_option,
    broker_option,
    echo_json,
    fail,
    progress,
    where_of,
    where_options,
)
from celery_argsize.configure import advice_for
from celery_argsize.errors import ArgsizeError
from celery_argsize.report import NOTHING_YET, report_json, report_text

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["report", "show_report"]


@click.command()
@where_options
@broker_option
@as_json_option
@click.pass_context
def report(context: click.Context, /, as_json: bool, broker: str | None, **where: Any) -> None:  # noqa: FBT001 - click passes flags so
    """Show what was measured, and the limit that follows from it.

    Example: celery -A proj argsize report
    """
    context.exit(show_report(app_of(context), as_json=as_json, broker=broker, **where_of(where)))


def show_report(app: Celery | None, *, as_json: bool, broker: str | None = None, **where: str | None) -> int:
    """Print the report for *app*, or for what *where* (redis_url, key_prefix, app_name) says; returns the exit code."""
    try:
        summary = get_size_summary(app, **where)
        with progress("Weighing limits") as advance:
            advice = advice_for(summary, app, broker, progress=advance)
    except ArgsizeError as exc:
        return fail(exc)
    if as_json:
        echo_json(report_json(summary, advice))
    elif summary.total_tasks:
        click.echo(report_text(summary, advice))
    if not summary.total_tasks:
        click.echo(NOTHING_YET, err=as_json)
        return EXIT_NOTHING_YET
    return 0
