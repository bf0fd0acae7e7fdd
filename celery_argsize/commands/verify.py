"""``celery argsize verify``: whether limits are in force on the hosts that send messages."""

from __future__ import annotations

import click

from celery_argsize.advice.in_force import hosts_text
from celery_argsize.api.advice import verify_limits
from celery_argsize.commands import common


@common.command
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Only messages of the last MINUTES.")
@common.as_json_option
def verify(*, source: common.Source, as_json: bool, minutes: float | None) -> int:
    """Show whether the limits of the app given with -A are in force on the hosts that messages come from.

    Ends with 0 if they are, 4 if they are not on some host,
    1 if no message shows it.

    Example: celery -A proj argsize verify --minutes 10
    """
    if source.app is None:
        message = "verify needs the app whose limits are wanted: celery -A proj argsize verify"
        raise click.UsageError(message)
    with common.waiting():
        checks = verify_limits(source.app, seconds=minutes and minutes * 60, **source.where)
    if as_json:
        common.echo_json([check.to_json() for check in checks])
    else:
        click.echo(hosts_text(checks) or "No message was seen; send some, and look again after a second.")
    verdicts = {check.verdict for check in checks}
    if "not_in_force" in verdicts:
        return common.EXIT_NOT_IN_FORCE
    return 0 if "in_force" in verdicts else common.EXIT_NOTHING_YET
