"""Makes ``celery inspect argsize`` known to Celery. Workers answer it: worker/remote_control.py.

Celery imports this at every start, so it imports nothing heavy.
"""

from __future__ import annotations

import click
from celery.bin.control import inspect

import celery_argsize.worker.remote_control  # noqa: F401 - registers the command


def announce() -> None:
    """Add ``argsize`` to the choices of ``celery inspect``, which Celery 5.3 lists too early."""
    for option in inspect.params:
        if isinstance(option.type, click.Choice):
            option.type = click.Choice([*option.type.choices, "argsize"])
