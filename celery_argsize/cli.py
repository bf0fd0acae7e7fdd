"""``celery argsize …``: the commands, and the report that the check script shares with them.

celery imports this module at every start, whatever the command: only click is imported at the top.
Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 nothing collected yet, 2 bad usage or setting,
3 Redis could not be read or written.
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

_F = TypeVar("_F", bound="Callable[..., Any]")


def _where_options(command: _F) -> _F:
    for option in (
        click.option("--app-name", help="Only the app of this name, where several share a Redis."),
        click.option("--key-prefix", help="Prefix of the keys in Redis.  [default: celery-argsize]"),
        click.option("--redis-url", help="The Redis that the workers write to; not needed with -A."),
    ):
        command = option(command)
    return command


@click.group()
def argsize() -> None:
    """Show how big task arguments are, and whether Celery cuts their repr.

    For example:

      celery -A proj argsize report

      celery argsize report --redis-url redis://localhost:6379/0 --json
    """


@argsize.command()
@_where_options
@click.option("--json", "as_json", is_flag=True, help="As JSON, for other programs.")
@click.pass_context
def report(context: click.Context, /, as_json: bool, **where: Any) -> None:  # noqa: FBT001 - click passes flags so
    """Show what was measured, and the limit that follows from it.

    Example: celery -A proj argsize report
    """
    context.exit(show_report(_app(context), as_json=as_json, **_where(where)))


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


def show_report(app: Celery | None, *, as_json: bool, **where: str | None) -> int:
    """Print the report for *app*, or for what *where* (redis_url, key_prefix, app_name) says; returns the exit code."""
    from celery_argsize.api import get_size_summary  # noqa: PLC0415 - see the top
    from celery_argsize.errors import ArgsizeError  # noqa: PLC0415
    from celery_argsize.report import NOTHING_YET, report_json, report_text  # noqa: PLC0415

    try:
        summary = get_size_summary(app, **where)
    except ArgsizeError as exc:
        return _fail(exc)
    if as_json:
        click.echo(json.dumps(report_json(summary), indent=2, ensure_ascii=False))
    elif summary.total_tasks:
        click.echo(report_text(summary))
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
