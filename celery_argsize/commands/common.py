"""What the commands share: where to look, exit codes, errors in plain words, progress.

Data goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from celery_argsize.errors import ArgsizeError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery import Celery

#: Nothing was collected yet; or, in ``check`` and ``diff``, what was looked for was found.
EXIT_NOTHING_YET: Final = 1
EXIT_FOUND: Final = 1
#: Bad usage, or a setting that cannot work.
EXIT_USAGE: Final = 2
#: Redis could not be read or written.
EXIT_STORE: Final = 3
#: Limits are not in force (``verify``).
EXIT_NOT_IN_FORCE: Final = 4

_F = TypeVar("_F", bound="Callable[..., Any]")


def where_options(command: _F) -> _F:
    """Add the options that say which figures are meant; ``where_of`` gets them out."""
    for option in (
        click.option("--app-name", help="Only the app of this name, where several share a Redis."),
        click.option("--key-prefix", help="Prefix of the keys in Redis.  [default: celery-argsize]"),
        click.option("--redis-url", help="The Redis that the workers write to; not needed with -A."),
    ):
        command = option(command)
    return command


broker_option: Final = click.option(
    "--broker", help="What messages go through, such as amqp or sqs.  [default: the broker of the app given with -A]"
)

as_json_option: Final = click.option("--json", "as_json", is_flag=True, help="As JSON, for other programs.")


def where_of(options: dict[str, Any]) -> dict[str, Any]:
    """Our options out of a command's keywords: an app may have added preload options of its own."""
    return {name: options.get(name) for name in ("redis_url", "key_prefix", "app_name")}


def app_of(context: click.Context) -> Celery | None:
    """The app given with -A; celery makes one up where none is."""
    root = context.find_root()
    return root.obj.app if root.params.get("app") else None


def colored(context: click.Context) -> bool | None:
    """Whether to use colors: ``False`` with celery's ``--no-color`` or ``NO_COLOR``; ``None`` leaves it to click.

    click leaves them out where the output is not a terminal. https://no-color.org
    """
    plain = os.environ.get("NO_COLOR") or getattr(context.find_root().obj, "no_color", False)
    return False if plain else None


def echo_json(data: object) -> None:
    """Print *data* as JSON."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def fail(error: ArgsizeError) -> int:
    """Print *error*; the exit code for it."""
    click.echo(f"Error: {error}", err=True)
    return EXIT_STORE if isinstance(error, StoreError) else EXIT_USAGE


def drop_output() -> None:
    """Have what is left for stdout go nowhere: nobody takes it, and Python would try once more at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def failing(context: click.Context) -> Iterator[None]:
    """End the command where an error of ours gets out of the block."""
    try:
        yield
    except ArgsizeError as exc:
        context.exit(fail(exc))


#: What most commands wait for.
READING: Final = "Reading Redis"

#: Seconds after which a person is told what goes on: what is over by then needs no word.
PATIENCE: Final = 1.0


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on stderr, if that is a terminal, *what* the block waits for, where it does so for long."""
    if not sys.stderr.isatty():
        yield
        return
    timer = threading.Timer(PATIENCE, click.echo, [f"{what} …"], {"err": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, if that is a terminal, for what may take over two seconds; call it with how much of all is done.

    It appears after a second.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        bars: list[Any] = []

        def advance(done: int, of: int) -> None:
            if not bars and time.monotonic() > began + PATIENCE and sys.stderr.isatty():
                bars.append(stack.enter_context(click.progressbar(length=of, label=label, file=sys.stderr)))
            for bar in bars:
                bar.update(done - bar.pos)

        yield advance
