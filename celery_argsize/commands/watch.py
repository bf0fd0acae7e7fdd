"""``celery argsize watch``: the figures live. On a terminal it repaints a table; elsewhere it adds lines."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, Final

import click

from celery_argsize.api.location import Reader, locate
from celery_argsize.commands.common import (
    READING,
    app_of,
    colored,
    drop_output,
    failing,
    waiting,
    where_of,
    where_options,
)
from celery_argsize.errors import StoreError
from celery_argsize.figures.summary import summarize
from celery_argsize.views.watch import History, View, changes, screen
from celery_argsize.words import printable, when

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from celery_argsize.api.location import Location
    from celery_argsize.figures.summary import Summary
    from celery_argsize.views.watch import Paint

#: The alternate screen, without cursor and without wrapping; and back.
_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
#: Before a line and not after it: at the last column, some terminals would take the last character with the rest.
_CLEAR_LINE: Final = "\x1b[2K"
_CLEAR_BELOW: Final = "\x1b[J"
_CLEAR: Final = "\x1b[2J"

_LOOKS: Final[dict[str, dict[str, Any]]] = {
    "title": {"bold": True},
    "bad": {"fg": "red", "bold": True},
    "warn": {"fg": "yellow"},
    "dim": {"dim": True},
}

#: What ends it: Ctrl-C, SIGTERM, a terminal that is closed, Ctrl-\\; Windows has two of them.
_ENDING: Final = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]

#: Seconds after which a new size of the terminal is seen.
_GLANCE: Final = 0.2


@click.command()
@where_options
@click.option(
    "--interval", type=click.FloatRange(0.5, 3600), default=2.0, show_default=True, help="Seconds between two looks."
)
@click.option("--task", metavar="TEXT", default="", help="Only tasks with TEXT in their names.")
@click.pass_context
def watch(context: click.Context, /, interval: float, task: str, **where: Any) -> None:
    """Show the figures live, largest first: how often tasks run, how big they are, and what changes.

    On a terminal, a table that refreshes; elsewhere, a line for each task that ran. Ctrl-C ends it.

    Example: celery -A proj argsize watch --interval 5 --task music
    """
    with (
        failing(context),
        _ending_well(),
        closing(_Source(locate(app_of(context), **where_of(where)), task)) as source,
    ):
        history = History()
        with waiting(READING):
            view = source.first()
        if isinstance(sys.stdout, TextIOWrapper):  # what an ASCII terminal cannot show is no reason to end
            sys.stdout.reconfigure(errors="replace")
        plain = not sys.stdout.isatty() or os.environ.get("TERM") == "dumb"
        paint = _unpainted if colored(context) is False else _painted
        with nullcontext(_Lines()) if plain else _screen(paint) as out:
            while True:
                if not view.trouble:
                    view = replace(view, rows=history.add(view.summary, time.monotonic()))
                out.show(view)
                out.wait(interval)
                view = source.next(view)


@contextmanager
def _ending_well() -> Iterator[None]:
    """End the block without an error on Ctrl-C and the like, or when nobody reads on. The process ends with it."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        for number in _ENDING:  # a second one must not keep the terminal from being restored
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup, or a script for what it runs in the background
            signal.signal(number, end)
    try:
        yield
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        drop_output()


class _Source:
    """Where the figures are read again and again."""

    def __init__(self, location: Location, wanted: str) -> None:
        self._reader = Reader(location)
        self._wanted = wanted
        self._read_at = 0.0
        self.close = self._reader.close

    def first(self) -> View:
        """What is there now.

        Raises:
            ConfigError: it is not clear where to look.
            StoreError: Redis could not be read.
        """
        summary = self._read()
        return View(self._reader.where, summary, (), wanted=self._wanted)

    def next(self, view: View) -> View:
        """The same as of now; if Redis could not be read, *view* with the reason."""
        try:
            return replace(view, summary=self._read(), trouble="")
        except StoreError as exc:
            return replace(view, trouble=f"Last read: {when(self._read_at)}; {exc}")

    def _read(self) -> Summary:
        summary = summarize(*self._reader.read_each())
        self._read_at = time.time()
        return replace(summary, tasks=tuple(task for task in summary.tasks if self._wanted in task.name))


def _painted(text: str, kind: str) -> str:
    return click.style(text, **_LOOKS[kind])


def _unpainted(text: str, _kind: str) -> str:
    return text


@contextmanager
def _screen(paint: Paint) -> Iterator[_Screen]:
    """The terminal, which is put back into its state whatever happens."""
    shown = _Screen(paint)
    if hasattr(signal, "SIGTSTP"):  # Windows has none
        signal.signal(signal.SIGTSTP, shown.suspend)
    try:
        _write(_ENTER)
        yield shown
    finally:
        with suppress(OSError):  # it is gone
            _write(_LEAVE)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


class _Screen:
    """A terminal: a table that is painted over."""

    def __init__(self, paint: Paint) -> None:
        self._paint = paint
        self._again: Callable[[], None] = lambda: None
        self._size = shutil.get_terminal_size()

    def show(self, view: View) -> None:
        """Paint *view* over what is there."""
        self._again = lambda: self.show(view)
        before, self._size = self._size, shutil.get_terminal_size()
        lines = screen(view, self._size.columns, self._size.lines, self._paint)
        below = f"\n{_CLEAR_BELOW}" if len(lines) < self._size.lines else ""
        if self._size != before:
            _write(_CLEAR)
        _write(_HOME + "\n".join(_CLEAR_LINE + line for line in lines) + below)

    def wait(self, seconds: float) -> None:
        """Let time pass; where the terminal is resized meanwhile, paint anew."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _GLANCE))
            if shutil.get_terminal_size() != self._size:
                self._again()

    def suspend(self, *_: object) -> None:
        """On Ctrl-Z: give the terminal to the shell, and take it again once that lets us go on."""
        # Not through sys.stdout, which may be in the middle of writing.
        os.write(sys.stdout.fileno(), _LEAVE.encode())
        # With what a program without handler does: it goes on where no shell could wake it up (docker exec).
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self.suspend)
        os.write(sys.stdout.fileno(), _ENTER.encode())
        self._size = os.terminal_size((0, 0))  # so that it is painted at once


class _Lines:
    """A file or a pipe: lines that are added, and what else there is to say to stderr."""

    def __init__(self) -> None:
        self._said = ""

    def show(self, view: View) -> None:
        """Add what is new in *view*."""
        if view.trouble:
            self._say("Redis cannot be read; trying on", f". {printable(view.trouble)}")
            return
        self._say("Watching" if view.rows else "Nothing has been measured yet; waiting", f": {view.where}")
        for line in changes(view.rows, time.time()):
            click.echo(line)  # which flushes

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def _say(self, state: str, more: str) -> None:
        """Say what the state is, once."""
        if state != self._said:
            self._said = state
            click.echo(state + more, err=True)
