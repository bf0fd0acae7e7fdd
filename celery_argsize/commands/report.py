"""``celery argsize report``: what was measured, and the limit that follows from it. The check script shows the same."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from celery_argsize.advice.limits import limits_of
from celery_argsize.api.advice import advice_for
from celery_argsize.api.location import locate
from celery_argsize.commands.common import (
    EXIT_NOTHING_YET,
    app_of,
    as_json_option,
    broker_option,
    command,
    needs_extra,
    progress,
    read_summary,
    show,
)
from celery_argsize.errors import ConfigError
from celery_argsize.views.report import NOTHING_YET, report_json, report_text

if TYPE_CHECKING:
    from celery import Celery

    from celery_argsize.advice.advice import Advice
    from celery_argsize.figures.summary import Summary

_STDOUT: Final = "-"


class _HtmlFile(click.Path):
    """A file to write, or ``-`` for stdout."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name as it was given."""
        if not value:
            self.fail(f"the name of the file is empty; {_STDOUT} is stdout", param, ctx)
        return super().convert(value, param, ctx)


@command
@broker_option
@as_json_option
@click.option(
    "--html",
    metavar="FILE",
    type=_HtmlFile(dir_okay=False, readable=False, allow_dash=True),
    help="Into FILE, as a page for a browser that needs nothing else; - is stdout.",
)
def report(context: click.Context, /, *, as_json: bool, html: str | None, broker: str | None, **where: Any) -> int:
    """Show what was measured, and the limit that follows from it.

    Example: celery -A proj argsize report --html sizes.html
    """
    app = app_of(context)
    if html is None:
        return show_report(app, as_json=as_json, broker=broker, **where)
    if as_json:
        message = "--json and --html cannot be given together: run the command once for each"
        raise click.UsageError(message)
    return _write_page(html, app, broker, **where)


def read_advice(app: Celery | None, broker: str | None, **where: str | None) -> tuple[Summary, Advice]:
    """The figures in Redis, and the advice that follows.

    Raises:
        ConfigError: it is not clear where to look.
        StoreError: Redis could not be read.
    """
    summary = read_summary(app, **where)
    with progress("Weighing limits") as advance:
        return summary, advice_for(summary, app, broker, progress=advance)


def show_report(app: Celery | None, *, as_json: bool, broker: str | None, **where: str | None) -> int:
    """Print the report for *app*, or for what *where* (redis_url, key_prefix, app_name) says; the exit code.

    Raises:
        ConfigError: it is not clear where to look.
        StoreError: Redis could not be read.
    """
    summary, advice = read_advice(app, broker, **where)
    data, text = partial(report_json, summary, advice), partial(report_text, summary, advice)
    return show(data, text, as_json=as_json, runs=summary.total_tasks)


def _write_page(file: str, app: Celery | None, broker: str | None, **where: str | None) -> int:
    """Write the report into *file* as a page; the exit code. Where nothing was measured, none is written."""
    with needs_extra("--html"):
        from celery_argsize.views.page import report_html  # noqa: PLC0415 - only a page needs jinja2
    summary, advice = read_advice(app, broker, **where)
    if not summary.total_tasks:
        click.echo(NOTHING_YET, err=True)
        return EXIT_NOTHING_YET
    settings = locate(app, **where).settings
    page = report_html(
        summary,
        advice,
        redis_url=settings.redis_url,
        bounds=settings.histogram_buckets,
        limits=partial(limits_of, app) if app is not None else None,
        now=time.time(),
    )
    data = page.encode(errors="backslashreplace")
    if file == _STDOUT:
        click.echo(data, nl=False)
        return 0
    try:
        _replace(file, data)
    except OSError as exc:
        message = f"--html {file} cannot be written: {exc.strerror}"
        raise ConfigError(message) from None
    click.echo(f"Written: {file}", err=True)
    return 0


def _replace(file: str, data: bytes) -> None:
    """Make *data* the content of *file*, all or nothing; a pipe or a device, such as /dev/stdout, is written to."""
    atomic = Path(file).is_file() or not Path(file).exists()
    # The target of a link is replaced, not the link. There is no ``with``: after an error, click would replace as well.
    stream = click.open_file(os.path.realpath(file) if atomic else file, "wb", atomic=atomic)
    stream.write(data)
    stream.close()
