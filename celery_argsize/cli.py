"""``celery argsize …``: the commands, and the report that the check script shares with them.

celery imports this module at every start, whatever the command: only click is imported at the top.
Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 nothing collected yet, 2 bad usage or setting,
3 Redis could not be read or written, 4 limits are not in force (verify).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

__all__ = ["argsize", "show_report"]

EXIT_NOTHING_YET = 1
EXIT_USAGE = 2
EXIT_STORE = 3
EXIT_NOT_IN_FORCE = 4

_F = TypeVar("_F", bound="Callable[..., Any]")


def _where_options(command: _F) -> _F:
    for option in (
        click.option("--app-name", help="Only the app of this name, where several share a Redis."),
        click.option("--key-prefix", help="Prefix of the keys in Redis.  [default: celery-argsize]"),
        click.option("--redis-url", help="The Redis that the workers write to; not needed with -A."),
    ):
        command = option(command)
    return command


_broker_option = click.option(
    "--broker", help="What messages go through, such as amqp or sqs.  [default: the broker of the app given with -A]"
)


@click.group()
def argsize() -> None:
    """Show how big task arguments are, and whether Celery cuts their repr.

    For example:

      celery -A proj argsize report

      celery argsize report --redis-url redis://localhost:6379/0 --json
    """


@argsize.command()
@_where_options
@_broker_option
@click.option("--json", "as_json", is_flag=True, help="As JSON, for other programs.")
@click.pass_context
def report(context: click.Context, /, as_json: bool, broker: str | None, **where: Any) -> None:  # noqa: FBT001 - click passes flags so
    """Show what was measured, and the limit that follows from it.

    Example: celery -A proj argsize report
    """
    context.exit(show_report(_app(context), as_json=as_json, broker=broker, **_where(where)))


@argsize.command()
@_where_options
@_broker_option
@click.option("--json", "as_json", is_flag=True, help="As JSON, for other programs.")
@click.pass_context
def recommend(context: click.Context, /, as_json: bool, broker: str | None, **where: Any) -> None:  # noqa: FBT001 - as above
    """Show what cures truncated reprs: which limits, for which tasks, at what cost; or what else to do.

    Example: celery -A proj argsize recommend
    """
    from celery_argsize.advice_text import advice_text  # noqa: PLC0415 - see the top
    from celery_argsize.configure import get_advice  # noqa: PLC0415
    from celery_argsize.errors import ArgsizeError  # noqa: PLC0415
    from celery_argsize.report import NOTHING_YET  # noqa: PLC0415

    try:
        advice = get_advice(_app(context), broker=broker, **_where(where))
    except ArgsizeError as exc:
        context.exit(_fail(exc))
    if as_json or advice.total_tasks:
        click.echo(json.dumps(advice.to_json(), indent=2, ensure_ascii=False) if as_json else advice_text(advice))
    if not advice.total_tasks:
        click.echo(NOTHING_YET, err=as_json)
        context.exit(EXIT_NOTHING_YET)


@argsize.command()
@_where_options
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Only messages of the last MINUTES.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for other programs.")
@click.pass_context
def verify(context: click.Context, /, as_json: bool, minutes: float | None, **where: Any) -> None:  # noqa: FBT001 - as above
    """Show whether the limits of the app given with -A are in force on the hosts that messages come from.

    Ends with 0 if they are, 4 if they are not on some host, 1 if no message shows it.

    Example: celery -A proj argsize verify --minutes 10
    """
    from celery_argsize.configure import verify_limits  # noqa: PLC0415 - see the top
    from celery_argsize.errors import ArgsizeError  # noqa: PLC0415
    from celery_argsize.verify import hosts_text  # noqa: PLC0415

    app = _app(context)
    if app is None:
        message = "verify needs the app whose limits are wanted: celery -A proj argsize verify"
        raise click.UsageError(message)
    try:
        checks = verify_limits(app, seconds=minutes and minutes * 60, **_where(where))
    except ArgsizeError as exc:
        context.exit(_fail(exc))
    if as_json:
        click.echo(json.dumps([check.to_json() for check in checks], indent=2, ensure_ascii=False))
    else:
        click.echo(hosts_text(checks) or "No message was seen; send some, and look again after a second.")
    verdicts = {check.verdict for check in checks}
    context.exit(EXIT_NOT_IN_FORCE if "not_in_force" in verdicts else 0 if "in_force" in verdicts else EXIT_NOTHING_YET)


@argsize.command()
@_where_options
@click.option("--task", help="Only this task.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def reset(context: click.Context, /, task: str | None, yes: bool, **where: Any) -> None:  # noqa: FBT001 - as above
    """Forget what was measured, to start afresh after a change.

    Example: celery -A proj argsize reset --task music.scan --yes
    """
    from celery_argsize.errors import ArgsizeError  # noqa: PLC0415
    from celery_argsize.reset import reset_metrics  # noqa: PLC0415 - see the top

    if not yes:
        click.confirm(f"Forget the figures of {task or 'all tasks'}?", abort=True, err=True)
    try:
        result = reset_metrics(_app(context), task=task, **_where(where))
    except ArgsizeError as exc:
        context.exit(_fail(exc))
    click.echo(str(result))
    context.exit(EXIT_NOTHING_YET if result.forgotten == 0 else 0)


def show_report(app: Celery | None, *, as_json: bool, broker: str | None = None, **where: str | None) -> int:
    """Print the report for *app*, or for what *where* (redis_url, key_prefix, app_name) says; returns the exit code."""
    from celery_argsize.api import get_size_summary  # noqa: PLC0415 - see the top
    from celery_argsize.configure import advice_for  # noqa: PLC0415
    from celery_argsize.errors import ArgsizeError  # noqa: PLC0415
    from celery_argsize.report import NOTHING_YET, report_json, report_text  # noqa: PLC0415

    try:
        summary = get_size_summary(app, **where)
        advice = advice_for(summary, app, broker)
    except ArgsizeError as exc:
        return _fail(exc)
    if as_json:
        click.echo(json.dumps(report_json(summary, advice), indent=2, ensure_ascii=False))
    elif summary.total_tasks:
        click.echo(report_text(summary, advice))
    if not summary.total_tasks:
        click.echo(NOTHING_YET, err=as_json)
        return EXIT_NOTHING_YET
    return 0


def _fail(exc: Exception) -> int:
    from celery_argsize.errors import StoreError  # noqa: PLC0415 - see the top

    click.echo(f"Error: {exc}", err=True)
    return EXIT_STORE if isinstance(exc, StoreError) else EXIT_USAGE


def _where(options: dict[str, Any]) -> dict[str, Any]:
    """Our options out of a command's keywords: an app may have added preload options of its own."""
    return {name: options.get(name) for name in ("redis_url", "key_prefix", "app_name")}


def _app(context: click.Context) -> Celery | None:
    """The app given with -A; celery makes one up where none is."""
    root = context.find_root()
    return root.obj.app if root.params.get("app") else None
