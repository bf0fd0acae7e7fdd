"""``celery argsize verify``: are the limits in force on the hosts that messages come from."""

from __future__ import annotations

from typing import Any

import click

from celery_argsize.advice.in_force import hosts_text
from celery_argsize.api.advice import verify_limits
from celery_argsize.commands.common import (
    EXIT_NOT_IN_FORCE,
    EXIT_NOTHING_YET,
    READING,
    app_of,
    as_json_option,
    command,
    echo_json,
    waiting,
)


@command
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Only messages of the last MINUTES.")
@as_json_option
def verify(context: click.Context, /, *, as_json: bool, minutes: float | None, **where: Any) -> int:
    """Show whether the limits of the app given with -A are in force on the hosts that messages come from.

    Ends with 0 if they are, 4 if they are not on some host, 1 if no message shows it.

    Example: celery -A proj argsize verify --minutes 10
    """
    app = app_of(context)
    if app is None:
        message = "verify needs the app whose limits are wanted: celery -A proj argsize verify"
        raise click.UsageError(message)
    with waiting(READING):
        checks = verify_limits(app, seconds=minutes and minutes * 60, **where)
    if as_json:
        echo_json([check.to_json() for check in checks])
    else:
        click.echo(hosts_text(checks) or "No message was seen; send some, and look again after a second.")
    verdicts = {check.verdict for check in checks}
    if "not_in_force" in verdicts:
        return EXIT_NOT_IN_FORCE
    return 0 if "in_force" in verdicts else EXIT_NOTHING_YET
