"""``celery argsize recommend``: what cures truncated reprs, at what cost."""

from __future__ import annotations

from typing import Any

import click

from celery_argsize.commands.common import (
    EXIT_NOTHING_YET,
    app_of,
    as_json_option,
    broker_option,
    echo_json,
    failing,
    where_of,
    where_options,
)
from celery_argsize.commands.report import weighed
from celery_argsize.views.advice_text import advice_text
from celery_argsize.views.report import NOTHING_YET


@click.command()
@where_options
@broker_option
@as_json_option
@click.pass_context
def recommend(context: click.Context, /, as_json: bool, broker: str | None, **where: Any) -> None:  # noqa: FBT001 - click passes flags so
    """Show what cures truncated reprs: which limits, for which tasks, at what cost; or what else to do.

    Example: celery -A proj argsize recommend
    """
    with failing(context):
        _, advice = weighed(app_of(context), broker, **where_of(where))
    if as_json:
        echo_json(advice.to_json())
    elif advice.total_tasks:
        click.echo(advice_text(advice))
    if not advice.total_tasks:
        click.echo(NOTHING_YET, err=as_json)
        context.exit(EXIT_NOTHING_YET)
