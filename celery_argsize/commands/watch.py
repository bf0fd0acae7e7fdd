"""``celery argsize watch``: the figures live."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from io import TextIOWrapper
from itertools import chain
from typing import TYPE_CHECKING, Final

import click

from celery_argsize.api.location import Reader
from celery_argsize.commands import common
from celery_argsize.errors import StoreError
from celery_argsize.words import printable, when

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.live import Live

    from celery_argsize.views.watch import History, View

#: Ctrl-C, SIGTERM, a closed terminal, Ctrl-\\.
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@common.command
@click.option(
    "--interval", type=click.FloatRange(0.5, 3600), default=2.0, show_default=True, help="Seconds between two looks."
)
@click.option("--task", metavar="TEXT", default="", help="Only tasks with TEXT in their names.")
def watch(*, source: common.Source, interval: float, task: str) -> None:
    """Show the figures live, largest first: how often tasks run, how big they are, and what changes.

    On a terminal, a table that refreshes; elsewhere, a line for each
    task that ran. Ctrl-C ends it.

    Example: celery -A proj argsize watch --interval 5 --task music
    """
    with common.needs_extra("watch"):
        from rich.console import Console  # noqa: PLC0415 - slow
        from rich.live import Live  # noqa: PLC0415

        from celery_argsize.views.watch import History  # noqa: PLC0415
    with _ended_by_signals(), closing(Reader(source.locate())) as reader:
        views = _views(reader, History(reader.where, task))
        with common.waiting():
            views = chain([next(views)], views)
        if isinstance(sys.stdout, TextIOWrapper):  # an ASCII terminal shows ? for an arrow
            sys.stdout.reconfigure(errors="replace")
        # Without a color system, there is no bold either.
        console = Console(color_system=None if common.colored() is False else "auto", force_terminal=True)
        if sys.stdout.isatty() and not console.is_dumb_terminal:
            # Rich also repaints by itself, to follow the size of the terminal.
            _repaint(views, interval, Live(console=console, screen=True, refresh_per_second=2))
        else:
            _add_lines(views, interval)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End the block without an error on an ``_ENDING`` signal, or when nobody reads stdout."""

    def end(*_: object) -> None:
        for number in _ENDING:  # a second one must not keep the terminal from being restored
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores some
            signal.signal(number, end)
    try:
        yield
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        common.drop_output()


def _views(reader: Reader, history: History) -> Iterator[View]:
    """A view for each read of the figures. If a read fails: the last view, and the error."""
    view, read_at = None, 0.0
    while True:
        try:
            view, read_at = history.view(reader.read_each(), time.monotonic()), time.time()
        except StoreError as exc:
            if view is None:
                raise
            view = replace(view, stale=f"Last read: {when(read_at)}; {exc}")
        yield view


def _add_lines(views: Iterable[View], interval: float) -> None:
    """Write a line for each task that ran. The state of the figures goes to stderr."""
    state = ""
    for view in views:
        before = state
        state = f"{'Watching' if view.rows else 'Nothing has been measured yet; waiting'}: {view.where}"
        if view.stale:
            state = f"Redis cannot be read; trying on. {printable(view.stale)}"
        if state != before:
            click.echo(state, err=True)
        for line in view.changes(time.time()):
            click.echo(line)  # which flushes
        time.sleep(interval)


def _repaint(views: Iterable[View], interval: float, live: Live) -> None:
    """Paint each view over the one before. The terminal is restored whatever happens."""

    def suspend(*_: object) -> None:  # on Ctrl-Z
        live.stop()
        # The kernel does not stop a process that no shell
        # could continue (docker exec).
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, suspend)
        live.start(refresh=True)

    try:
        live.start()
        signal.signal(signal.SIGTSTP, suspend)
        for view in views:
            live.update(view)
            time.sleep(interval)
    finally:
        with suppress(OSError):  # the terminal is gone
            live.stop()
