"""``celery argsize check``: for CI and cron, an exit code that says whether all is within bounds."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from celery_argsize.api.figures import get_size_summary
from celery_argsize.commands.common import (
    EXIT_FOUND,
    EXIT_NOTHING_YET,
    READING,
    app_of,
    as_json_option,
    echo_json,
    failing,
    waiting,
    where_of,
    where_options,
)
from celery_argsize.views.check import Bounds, check_summary, checked_text
from celery_argsize.views.report import NOTHING_YET

if TYPE_CHECKING:
    from celery_argsize.figures.summary import Summary

_UNITS: Final = {"": 1, "B": 1, "KB": 1024, "MB": 1024 * 1024}


def _bytes(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """A number of bytes: ``1000``, ``512KB`` or ``1MB``."""
    if value is None:
        return None
    found = re.fullmatch(r"\s*(\d{1,18})\s*([KM]?B|)\s*", value.upper(), re.ASCII)
    if found is None:
        message = f"{value!r} is not a whole number of bytes, such as 1000, 512KB or 1MB"
        raise click.BadParameter(message)
    return int(found[1]) * _UNITS[found[2]]


@click.command()
@where_options
@click.option("--max-bytes", metavar="N", callback=_bytes, help="No args or kwargs over N bytes: 1000, 512KB, 1MB.")
@click.option("--no-truncation", is_flag=True, help="No truncated repr.")
@click.option("--task", "names", metavar="NAME", multiple=True, help="Only this task; may be given more than once.")
@as_json_option
@click.pass_context
def check(
    context: click.Context,
    /,
    *,
    as_json: bool,
    max_bytes: int | None,
    no_truncation: bool,
    names: tuple[str, ...],
    **where: Any,
) -> None:
    """Show whether all arguments are within bounds: end with 0 if they are, with 1 if not.

    Ends with 1 also when nothing has been measured: then nothing is proven.

    Example: celery -A proj argsize check --max-bytes 512KB --no-truncation
    """
    if max_bytes is None and not no_truncation:
        message = "say what is to be checked: --max-bytes N, --no-truncation, or both"
        raise click.UsageError(message)
    with failing(context), waiting(READING):
        summary = get_size_summary(app_of(context), **where_of(where))
    if names and summary.tasks:
        summary = _only(summary, names)
    checked = check_summary(summary, Bounds(max_bytes, no_truncation))
    if as_json:
        echo_json(checked.to_json())
    elif checked.runs:
        click.echo(checked_text(checked))
    if not checked.runs:
        click.echo(NOTHING_YET, err=as_json)
        context.exit(EXIT_NOTHING_YET)
    context.exit(0 if checked.within else EXIT_FOUND)


def _only(summary: Summary, names: tuple[str, ...]) -> Summary:
    known = [task.name for task in summary.tasks]
    for name in names:
        if name not in known:
            close = ", ".join(difflib.get_close_matches(name, known))
            hint = f"perhaps: {close}" if close else "argsize report shows those that were"
            message = f"no task named {name!r} was measured; {hint}"
            raise click.BadParameter(message, param_hint="--task")
    return replace(summary, tasks=tuple(task for task in summary.tasks if task.name in names))
