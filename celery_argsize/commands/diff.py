"""``celery argsize diff``: what a change of the code did to each task, from two reports or one and what is in Redis."""

from __future__ import annotations

import json
import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from celery_argsize.api.figures import get_size_summary
from celery_argsize.api.location import locate
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
from celery_argsize.errors import ConfigError
from celery_argsize.redis_url import safe_url
from celery_argsize.views.diff import OVERLAP, REMAKE, compare, diff_text, failures, failures_text, parse_snapshot

if TYPE_CHECKING:
    from celery_argsize.views.diff import Snapshot

_STDIN = "-"


def _percent(_context: click.Context, _option: click.Parameter, value: str | None) -> Fraction | None:
    """A number of percent: ``20`` or ``20%``."""
    if value is None:
        return None
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*%?\s*", value, re.ASCII)
    if found is None:
        message = f"{value!r} is not a number of percent, such as 20%"
        raise click.BadParameter(message)
    return Fraction(found[1])


_file = click.Path(exists=True, dir_okay=False, allow_dash=True)


@click.command()
@where_options
@click.option(
    "--fail-on-growth", metavar="PERCENT", callback=_percent, help="End with 1 if a mean grew by more than this: 20%."
)
@click.option("--fail-on-truncation", is_flag=True, help="End with 1 if something is newly truncated.")
@click.option("--all", "everything", is_flag=True, help="Show what is the same, too.")
@as_json_option
@click.argument("before", type=_file)
@click.argument("after", type=_file, required=False)
@click.pass_context
def diff(  # noqa: PLR0913 - each is an option of the command
    context: click.Context,
    /,
    before: str,
    after: str | None,
    *,
    as_json: bool,
    everything: bool,
    fail_on_growth: Fraction | None,
    fail_on_truncation: bool,
    **where: Any,
) -> None:
    """Show what a change did to each task: larger, smaller, new, gone, newly truncated.

    BEFORE and AFTER are files that argsize report --json wrote; - is stdin. Without AFTER, it is what is in Redis now.
    Ends with 1 if something failed, if one of the two has nothing measured, or if nothing was reset in between.

    Example: celery -A proj argsize diff before.json --fail-on-growth 20%
    """
    given = where_of(where)
    if after is not None and any(given.values()):
        message = "with AFTER, nothing is read from Redis: leave out --redis-url, --key-prefix and --app-name, or AFTER"
        raise click.UsageError(message)
    if before == after == _STDIN:
        message = "BEFORE and AFTER cannot both be read from stdin"
        raise click.UsageError(message)
    with failing(context):
        found = compare(_read(before), _now(context, given) if after is None else _read(after))
    failed = failures(found, growth=fail_on_growth, truncation=fail_on_truncation)
    if as_json:
        echo_json({**found.to_json(), "failures": [failure._asdict() for failure in failed]})
    else:
        click.echo(diff_text(found, everything=everything))
    if failed:
        click.echo(failures_text(failed) if as_json else f"\n{failures_text(failed)}", err=as_json)
        context.exit(EXIT_FOUND)
    if found.overlap and (fail_on_growth is not None or fail_on_truncation):
        reset = "what changed shows in part only. Reset after the first report: celery -A proj argsize reset"
        click.echo(f"Nothing is proven. {OVERLAP} So {reset}", err=True)
        context.exit(EXIT_FOUND)
    for snapshot in (found.before, found.after):
        if not snapshot.runs:
            click.echo(f"Nothing was measured in {snapshot.where}: there is nothing to compare.", err=True)
            context.exit(EXIT_NOTHING_YET)


def _now(context: click.Context, given: dict[str, Any]) -> Snapshot:
    """What is in Redis."""
    app = app_of(context)
    with waiting(READING):
        summary = get_size_summary(app, **given)
    return parse_snapshot(summary.to_json(), safe_url(locate(app, **given).settings.redis_url))


def _read(path: str) -> Snapshot:
    """What is in the file at *path*.

    Raises:
        ConfigError: it is not a report.
    """
    where = "stdin" if path == _STDIN else path
    try:
        # As bytes: json sees by itself whether this is UTF-8, or UTF-16 as PowerShell writes it.
        text = sys.stdin.buffer.read() if path == _STDIN else Path(path).read_bytes()
        data = json.loads(text, parse_constant=_refuse)
    except OSError as exc:
        message = f"{where} cannot be read: {exc.strerror}"
        raise ConfigError(message) from None
    except (ValueError, RecursionError):
        message = f"{where} is not JSON; {REMAKE}"
        raise ConfigError(message) from None
    return parse_snapshot(data, where)


def _refuse(_constant: str) -> NoReturn:
    """NaN and Infinity are no JSON."""
    raise ValueError
