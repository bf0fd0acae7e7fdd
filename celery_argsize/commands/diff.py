"""``celery argsize diff``: what changed between two reports, or since a report."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn

import click

from celery_argsize.commands import common
from celery_argsize.errors import ConfigError
from celery_argsize.redis_url import safe_url
from celery_argsize.views.diff import OVERLAP, REMAKE, compare, diff_text, failures, failures_text, parse_snapshot

if TYPE_CHECKING:
    from celery_argsize.views.diff import Snapshot

#: click's name for stdin.
_STDIN: Final = "<stdin>"


def _percent(_context: click.Context, _option: click.Parameter, value: str | None) -> Fraction | None:
    """A number of percent: ``20`` or ``20%``."""
    if value is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*%?\s*", value, re.ASCII)
    if match is None:
        message = f"{value!r} is not a number of percent, such as 20%"
        raise click.BadParameter(message)
    return Fraction(match[1])


@common.command
@click.option(
    "--fail-on-growth", metavar="PERCENT", callback=_percent, help="End with 1 if a mean grew by more than this: 20%."
)
@click.option("--fail-on-truncation", is_flag=True, help="End with 1 if something is newly truncated.")
@click.option("--all", "everything", is_flag=True, help="Show what is the same, too.")
@common.as_json_option
@click.argument("before", type=click.File("rb"))
@click.argument("after", type=click.File("rb"), required=False)
def diff(  # noqa: PLR0913 - options
    *,
    source: common.Source,
    before: BinaryIO,
    after: BinaryIO | None,
    as_json: bool,
    everything: bool,
    fail_on_growth: Fraction | None,
    fail_on_truncation: bool,
) -> int:
    """Show what a change did to each task: larger, smaller, new, gone, newly truncated.

    BEFORE and AFTER are files that argsize report --json wrote; - is stdin.
    Without AFTER, it is what is in Redis now. Ends with 1 if something failed, if
    one of the two has nothing measured, or if nothing was reset in between.

    Example: celery -A proj argsize diff before.json --fail-on-growth 20%
    """
    if after is not None and any(source.where.values()):
        message = "with AFTER, nothing is read from Redis: leave out --redis-url, --key-prefix and --app-name"
        raise click.UsageError(message)
    if after is not None and before.name == after.name == _STDIN:
        message = "BEFORE and AFTER cannot both be read from stdin"
        raise click.UsageError(message)
    changes = compare(_read(before), _read(after) if after else _read_redis(source))
    failed = failures(changes, growth=fail_on_growth, truncation=fail_on_truncation)
    if as_json:
        common.echo_json({**changes.to_json(), "failures": [failure._asdict() for failure in failed]})
    else:
        click.echo(diff_text(changes, everything=everything))
    if failed:
        click.echo(("" if as_json else "\n") + failures_text(failed), err=as_json)
        return common.EXIT_FOUND
    if changes.overlap and (fail_on_growth is not None or fail_on_truncation):
        reset = "Reset after the first report: celery -A proj argsize reset"
        click.echo(f"Nothing is proven. {OVERLAP} {reset}", err=True)
        return common.EXIT_FOUND
    for snapshot in (changes.before, changes.after):
        if not snapshot.total_tasks:
            click.echo(f"Nothing was measured in {snapshot.where}.", err=True)
            return common.EXIT_NOTHING_YET
    return 0


def _read(stream: BinaryIO) -> Snapshot:
    where = "stdin" if stream.name == _STDIN else stream.name
    try:
        # Bytes, as json itself tells UTF-8 from PowerShell's UTF-16.
        data = json.loads(stream.read(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        message = f"{where} is not JSON; {REMAKE}"
        raise ConfigError(message) from None
    return parse_snapshot(data, where)


def _refuse(_constant: str) -> NoReturn:
    """NaN and Infinity are no JSON."""
    raise ValueError


def _read_redis(source: common.Source) -> Snapshot:
    return parse_snapshot(source.read().to_json(), safe_url(source.locate().settings.redis_url))
