"""``celery argsize``: the names of its commands. A command's module is imported at its use.

Celery imports this at every start, so it imports only what
Celery has imported before.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

from celery_argsize.api import inspect_command

COMMANDS: Final = ("check", "diff", "doctor", "exporter", "recommend", "report", "reset", "verify", "watch")

inspect_command.announce()


class _Commands(click.Group):
    """Imports a command from the module with its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"celery_argsize.commands.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_Commands)
def argsize(**_preload: object) -> None:
    """Show how large task arguments are, and whether Celery truncates their repr.

    For example:

      celery -A proj argsize report

      celery argsize report --redis-url redis://localhost:6379/0 --json
    """
    # Keywords: the app's own options for all commands (app.user_options["preload"]).
