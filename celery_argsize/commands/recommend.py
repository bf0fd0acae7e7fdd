"""``celery argsize recommend``: what cures truncated reprs, at what cost."""

from __future__ import annotations

from functools import partial

from celery_argsize.commands import common
from celery_argsize.commands.report import read_advice
from celery_argsize.views.advice_text import advice_text


@common.command
@common.broker_option
@common.as_json_option
def recommend(*, source: common.Source, as_json: bool, broker: str | None) -> int:
    """Show what cures truncated reprs: which limits, for which tasks, at what cost; or what else to do.

    Example: celery -A proj argsize recommend
    """
    _, advice = read_advice(source, broker)
    return common.show(advice.to_json, partial(advice_text, advice), as_json=as_json, runs=advice.total_tasks)
