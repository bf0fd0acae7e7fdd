"""``celery argsize report``: what was measured, and the limit that follows from it."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from celery_argsize.advice.limits import limits_of
from celery_argsize.api.advice import advice_for
from celery_argsize.commands import common
from celery_argsize.errors import ConfigError
from celery_argsize.views.report import NOTHING_YET, report_json, report_text

if TYPE_CHECKING:
    from celery_argsize.advice.advice import Advice
    from celery_argsize.figures.summary import Summary


@common.command
@common.broker_option
@common.as_json_option
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(dir_okay=False, readable=False, allow_dash=True),
    help="Into FILE, as a page for a browser that needs nothing else; - is stdout.",
)
def report(*, source: common.Source, as_json: bool, html: str | None, broker: str | None) -> int:
    """Show what was measured, and the limit that follows from it.

    Example: celery -A proj argsize report --html sizes.html
    """
    if html is None:
        return show_report(source, broker, as_json=as_json)
    if as_json:
        message = "--json and --html cannot be given together: run the command once for each"
        raise click.UsageError(message)
    return _write_page(html, source, broker)


def read_advice(source: common.Source, broker: str | None) -> tuple[Summary, Advice]:
    """The figures in Redis, and the advice on them."""
    summary = source.read()
    return summary, advice_for(summary, source.app, broker)


def show_report(source: common.Source, broker: str | None, *, as_json: bool) -> int:
    """Print the report. Returns the exit code; raises what ``get_size_summary`` raises."""
    summary, advice = read_advice(source, broker)
    data, text = partial(report_json, summary, advice), partial(report_text, summary, advice)
    return common.show(data, text, as_json=as_json, runs=summary.total_tasks)


def _write_page(file: str, source: common.Source, broker: str | None) -> int:
    """Write a page into *file*, if something was measured. Returns the exit code."""
    with common.needs_extra("--html"):
        from celery_argsize.views.page import report_html  # noqa: PLC0415 - needs jinja2
    summary, advice = read_advice(source, broker)
    if not summary.total_tasks:
        click.echo(NOTHING_YET, err=True)
        return common.EXIT_NOTHING_YET
    settings = source.locate().settings
    page = report_html(
        summary,
        advice,
        redis_url=settings.redis_url,
        bounds=settings.histogram_buckets,
        limits=partial(limits_of, source.app) if source.app else None,
        now=time.time(),
    )
    _write(file, page.encode(errors="backslashreplace"))
    return 0


def _write(file: str, data: bytes) -> None:
    """Write *data* into *file*, all or nothing. To ``-``, pipes and devices, it goes as it comes."""
    if file == "-":
        click.echo(data, nl=False)
        return
    atomic = Path(file).is_file() or not Path(file).exists()
    try:
        # Replaces the target of a link. Not in a ``with``: click would replace the
        # file after an error, too.
        stream = click.open_file(os.path.realpath(file) if atomic else file, "wb", atomic=atomic)
        stream.write(data)
        stream.close()
    except OSError as exc:
        message = f"--html {file} cannot be written: {exc.strerror}"
        raise ConfigError(message) from None
    click.echo(f"Written: {file}", err=True)
