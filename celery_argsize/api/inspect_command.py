"""Makes ``celery inspect argsize`` known to Celery's command line. Workers answer it in ``worker.remote_control``.

Celery imports this at every start, so it imports nothing heavy.
"""

from __future__ import annotations

import click
from celery.bin.control import inspect

import celery_argsize.worker.remote_control  # noqa: F401 - registers the command


def announce() -> None:
    """Add ``argsize`` to the words that ``celery inspect`` accepts. Celery 5.3 lists them before it imports plugins."""
    for option in inspect.params:
        if isinstance(option.type, click.Choice):
            option.type = click.Choice([*option.type.choices, "argsize"])
