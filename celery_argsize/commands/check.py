"""``celery argsize check``: its exit code says whether all arguments are within bounds."""

from __future__ import annotations

import difflib
import re
from functools import partial
from typing import TYPE_CHECKING, Final

import click

from celery_argsize.commands import common
from celery_argsize.views.check import check_summary, check_text, of_tasks

if TYPE_CHECKING:
    from celery_argsize.figures.summary import Summary

_UNITS: Final = {"": 1, "B": 1, "KB": 1024, "MB": 1024 * 1024}


def _bytes(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """A number of bytes: ``1000``, ``512KB`` or ``1MB``."""
    if value is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,18})\s*([KM]?B|)\s*", value.upper(), re.ASCII)
    if match is None:
        message = f"{value!r} is not a whole number of bytes, such as 1000, 512KB or 1MB"
        raise click.BadParameter(message)
    return int(match[1]) * _UNITS[match[2]]


@common.command
@click.option("--max-bytes", metavar="N", callback=_bytes, help="No args or kwargs over N bytes: 1000, 512KB, 1MB.")
@click.option("--no-truncation", is_flag=True, help="No truncated repr.")
@click.option("--task", "names", metavar="NAME", multiple=True, help="Only this task; may be given more than once.")
@common.as_json_option
def check(
    *,
    source: common.Source,
    as_json: bool,
    max_bytes: int | None,
    no_truncation: bool,
    names: tuple[str, ...],
) -> int:
    """Show whether all arguments are within bounds: end with 0 if they are, with 1 if not.

    Ends with 1 also when nothing has been measured: then nothing is proven.

    Example: celery -A proj argsize check --max-bytes 512KB --no-truncation
    """
    if max_bytes is None and not no_truncation:
        message = "say what is to be checked: --max-bytes N, --no-truncation, or both"
        raise click.UsageError(message)
    summary = source.read()
    if names and summary.tasks:
        summary = _only(summary, names)
    checked = check_summary(summary, max_bytes=max_bytes, no_truncation=no_truncation)
    text = partial(check_text, checked, len(summary.tasks))
    code = common.show(checked.to_json, text, as_json=as_json, runs=checked.total_tasks)
    return code or (0 if checked.within else common.EXIT_FOUND)


def _only(summary: Summary, names: tuple[str, ...]) -> Summary:
    """*summary* with only the tasks in *names*."""
    measured = [task.name for task in summary.tasks]
    for name in names:
        if name not in measured:
            similar = ", ".join(difflib.get_close_matches(name, measured))
            hint = f"perhaps: {similar}" if similar else "see argsize report"
            message = f"no task named {name!r} was measured; {hint}"
            raise click.BadParameter(message, param_hint="--task")
    return of_tasks(summary, names)
