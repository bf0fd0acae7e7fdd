"""``celery argsize …``: the names of the commands; each is a module in ``commands``, imported when it is used.

celery imports this module at every start, whatever the command: only what celery has imported by then is imported here.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

from celery_argsize.api import inspect_command

COMMANDS: Final = ("check", "diff", "doctor", "exporter", "recommend", "report", "reset", "verify", "watch")

inspect_command.announce()


class _Commands(click.Group):
    """Finds a command in the module of its name."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what it cannot write is an error like others."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # who reads has seen enough; click ends quietly
            raise
        except OSError as exc:
            from celery_argsize.commands.common import EXIT_USAGE, drop_output  # noqa: PLC0415 - see the top

            drop_output()
            click.echo(f"Error: the output cannot be written: {exc.strerror or exc}", err=True)
            ctx.exit(EXIT_USAGE)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"celery_argsize.commands.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_Commands)
def argsize() -> None:
    """Show how big task arguments are, and whether Celery cuts their repr.

    For example:

      celery -A proj argsize report

      celery argsize report --redis-url redis://localhost:6379/0 --json
    """
