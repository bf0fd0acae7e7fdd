"""``celery argsize recommend``: what cures truncated reprs, at what cost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from celery_argsize.commands.common import app_of, as_json_option, broker_option, command, show
from celery_argsize.commands.report import read_advice
from celery_argsize.views.advice_text import advice_text

if TYPE_CHECKING:
    import click


@command
@broker_option
@as_json_option
def recommend(context: click.Context, /, *, as_json: bool, broker: str | None, **where: Any) -> int:
    """Show what cures truncated reprs: which limits, for which tasks, at what cost; or what else to do.

    Example: celery -A proj argsize recommend
    """
    _, advice = read_advice(app_of(context), broker, **where)
    return show(advice.to_json, partial(advice_text, advice), as_json=as_json, runs=advice.total_tasks)
