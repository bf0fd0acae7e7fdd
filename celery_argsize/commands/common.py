"""Options, exit codes and error messages that the commands of ``celery argsize`` share.

Data goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from celery_argsize.api.figures import get_size_summary
from celery_argsize.api.location import locate
from celery_argsize.errors import ArgsizeError, ConfigError, StoreError
from celery_argsize.views.report import NOTHING_YET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery import Celery

    from celery_argsize.api.location import Location
    from celery_argsize.figures.summary import Summary

EXIT_NOTHING_YET: Final = 1  # nothing was measured
EXIT_FOUND: Final = 1  # ``check``, ``diff`` or ``doctor`` found a problem
EXIT_USAGE: Final = 2  # bad usage, a setting that cannot work, or output that cannot be written
EXIT_STORE: Final = 3  # Redis could not be read or written
EXIT_NOT_IN_FORCE: Final = 4  # limits are not in force (``verify``)

_WHERE: Final = {
    "redis_url": "The Redis that the workers write to; not needed with -A.",
    "key_prefix": "Prefix of the keys in Redis.  [default: celery-argsize]",
    "app_name": "Only the app of this name, if several apps share a Redis.",
}
broker_option: Final = click.option(
    "--broker", help="What messages go through, such as amqp or sqs.  [default: the broker of the app given with -A]"
)
as_json_option: Final = click.option("--json", "as_json", is_flag=True, help="As JSON, for other programs.")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a command reads figures."""

    app: Celery | None
    """The app given with ``-A``."""
    where: dict[str, str | None]
    """The options ``redis_url``, ``key_prefix`` and ``app_name``."""

    def locate(self) -> Location:
        """Find the figures. Raises what ``locate`` raises."""
        return locate(self.app, **self.where)

    def read(self) -> Summary:
        """Read the figures. Raises what ``get_size_summary`` raises."""
        with waiting():
            return get_size_summary(self.app, **self.where)


class _Command(click.Command):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params[:0] = [click.Option([f"--{name.replace('_', '-')}"], help=text) for name, text in _WHERE.items()]

    def invoke(self, ctx: click.Context) -> None:
        root = ctx.find_root()
        app = root.obj.app if root.params.get("app") else None  # without -A, Celery makes one
        ctx.params["source"] = Source(app, {name: ctx.params.pop(name) for name in _WHERE})
        try:
            code = super().invoke(ctx)
        except ArgsizeError as exc:
            code = fail(exc)
        except BrokenPipeError:  # the reader is gone: click ends quietly
            raise
        except OSError as exc:
            drop_output()
            click.echo(f"Error: the output cannot be written: {exc.strerror or exc}", err=True)
            code = EXIT_USAGE
        ctx.exit(code or 0)


def command(function: Callable[..., int | None]) -> click.Command:
    """A command with the options of a ``Source``. *function* returns an exit code, or ``None`` for 0."""
    return click.command(cls=_Command)(function)


def colored() -> bool | None:
    """``False`` for ``--no-color`` and ``NO_COLOR`` (https://no-color.org), else ``None``."""
    celery = click.get_current_context().find_root().obj
    return False if os.environ.get("NO_COLOR") or celery.no_color else None


def show(data: Callable[[], object], text: Callable[[], str], *, as_json: bool, runs: int) -> int:
    """Print *data* as JSON, or *text*; without runs, a hint instead of *text*. Returns the exit code."""
    if as_json:
        echo_json(data())
    elif runs:
        click.echo(text())
    if runs:
        return 0
    click.echo(NOTHING_YET, err=as_json)
    return EXIT_NOTHING_YET


def echo_json(data: object) -> None:
    """Print *data* as JSON."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def fail(error: ArgsizeError) -> int:
    """Print *error*. Returns its exit code."""
    click.echo(f"Error: {error}", err=True)
    return EXIT_STORE if isinstance(error, StoreError) else EXIT_USAGE


def drop_output() -> None:
    """Drop the rest of stdout, so that Python does not try to write it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def needs_extra(feature: str) -> Iterator[None]:
    """For imports of the extra ``cli``: a ``ConfigError`` says how to install it."""
    try:
        yield
    except ModuleNotFoundError as exc:
        library = str(exc.name).partition(".")[0]
        message = f"{feature} needs {library}, which is not installed: pip install 'celery-argsize[cli]'"
        raise ConfigError(message) from None


@contextmanager
def waiting(activity: str = "Reading Redis") -> Iterator[None]:
    """Show *activity* on stderr, if it is a terminal, after the block has taken a second."""
    timer = threading.Timer(1.0, click.echo, [f"{activity} …"], {"err": True})
    timer.daemon = True
    if sys.stderr.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
