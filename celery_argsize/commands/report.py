"""``celery argsize report``: what was measured, and the limit that follows from it. The check script shows the same."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from celery_argsize.advice.limits import limits_of
from celery_argsize.api.advice import advice_for
from celery_argsize.api.figures import get_size_summary
from celery_argsize.api.location import locate
from celery_argsize.commands.common import (
    EXIT_NOTHING_YET,
    READING,
    app_of,
    as_json_option,
    broker_option,
    echo_json,
    fail,
    progress,
    waiting,
    where_of,
    where_options,
)
from celery_argsize.errors import ArgsizeError, ConfigError
from celery_argsize.views.report import NOTHING_YET, report_json, report_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from celery_argsize.advice.advice import Advice
    from celery_argsize.figures.summary import Summary

STDOUT: Final = "-"


class _Page(click.Path):
    """A file to write, or ``-``; a shell completes its name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name as it is given."""
        if not value:
            self.fail(f"the name of the file is empty; {STDOUT} is stdout", param, ctx)
        return super().convert(value, param, ctx)


@click.command()
@where_options
@broker_option
@as_json_option
@click.option(
    "--html",
    metavar="FILE",
    type=_Page(dir_okay=False, readable=False, allow_dash=True),
    help="Into FILE, as a page for a browser that needs nothing else; - is stdout.",
)
@click.pass_context
def report(context: click.Context, /, as_json: bool, html: str | None, broker: str | None, **where: Any) -> None:  # noqa: FBT001 - click passes flags so
    """Show what was measured, and the limit that follows from it.

    Example: celery -A proj argsize report --html sizes.html
    """
    if as_json and html is not None:
        message = "--json and --html cannot be given together: run the command once for each"
        raise click.UsageError(message)
    context.exit(show_report(app_of(context), as_json=as_json, html=html, broker=broker, **where_of(where)))


def weighed(app: Celery | None, broker: str | None, **where: str | None) -> tuple[Summary, Advice]:
    """The figures, and the advice that follows, with a word to who waits for it.

    Raises:
        ConfigError: it is not clear where to look.
        StoreError: Redis could not be read.
    """
    with waiting(READING):
        summary = get_size_summary(app, **where)
    with progress("Weighing limits") as advance:
        return summary, advice_for(summary, app, broker, progress=advance)


def show_report(
    app: Celery | None, *, as_json: bool, html: str | None = None, broker: str | None = None, **where: str | None
) -> int:
    """Print the report for *app*, or for what *where* (redis_url, key_prefix, app_name) says; returns the exit code.

    With *html*, it goes into that file, as a page; where nothing was measured, none is written.
    """
    try:
        render = _renderer() if html is not None else None
        summary, advice = weighed(app, broker, **where)
        if render is not None and html is not None and summary.total_tasks:
            limits = partial(limits_of, app) if app is not None else None
            settings = locate(app, **where).settings
            known = {"redis_url": settings.redis_url, "bounds": settings.histogram_buckets, "limits": limits}
            _write(html, render(summary, advice, **known, now=time.time()))
    except ArgsizeError as exc:
        return fail(exc)
    if as_json:
        echo_json(report_json(summary, advice))
    elif summary.total_tasks and html is None:
        click.echo(report_text(summary, advice))
    if not summary.total_tasks:
        click.echo(NOTHING_YET, err=as_json or html is not None)
        return EXIT_NOTHING_YET
    return 0


def _renderer() -> Callable[..., str]:
    """What makes the page.

    Raises:
        ConfigError: what it is made with is not installed.
    """
    try:
        from celery_argsize.views.page import report_html  # noqa: PLC0415 - only who wants a page needs jinja2
    except ModuleNotFoundError as exc:
        if exc.name not in {"jinja2", "markupsafe"}:
            raise
        message = (
            "--html needs jinja2, which is not installed: pip install 'celery-argsize[html]', or pip install jinja2"
        )
        raise ConfigError(message) from None
    return report_html


def _write(file: str, page: str) -> None:
    """Write *page* to *file*, all or nothing: who opens it meanwhile finds the one before.

    Raises:
        ConfigError: it cannot be written.
        OSError: stdout cannot be.
    """
    data = page.encode(errors="backslashreplace")
    if file == STDOUT:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    target = Path(os.path.realpath(file))  # a link stays one
    new = target.with_name(f".argsize-{os.getpid()}.html")
    try:
        if target.exists() and not target.is_file():  # a pipe, /dev/stdout
            target.write_bytes(data)
            return
        try:
            if there := target.exists():
                new.touch(0o600)  # who may not read the one before, may not read this one
            new.write_bytes(data)
            if there:
                shutil.copymode(target, new)
            new.replace(target)
        except OSError as exc:
            if exc.errno not in {errno.EACCES, errno.EPERM, errno.EBUSY}:
                raise
            target.write_bytes(data)  # the folder may not be ours where the file is; and a mounted file stays one
    except OSError as exc:
        message = f"--html {file} cannot be written: {exc.strerror}"
        raise ConfigError(message) from None
    finally:
        with suppress(OSError):
            new.unlink()
    click.echo(f"Written: {file}", err=True)
