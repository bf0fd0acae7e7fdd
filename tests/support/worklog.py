"""A worker's log, taken apart: records with the name of their logger, whatever else is in a text."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["LOG_CONF", "Record", "ours", "records"]

#: Marks where a record begins, and parts the logger's name and the level from the text.
_FORMAT: Final = "\x1e%(name)s\x1f%(levelname)s\x1f%(message)s"

#: Settings of an app whose worker's log is to be taken apart.
LOG_CONF: Final = {"worker_log_format": _FORMAT, "worker_task_log_format": _FORMAT}


class Record(NamedTuple):
    """One record, with all that follows it, such as a traceback."""

    name: str
    level: str
    text: str


def records(log: str) -> list[Record]:
    """The records in *log*."""
    # printed by Celery, so that it may stand behind any record
    log = log.replace("\nworker: Warm shutdown (MainProcess)\n", "")
    return [Record(*record.split("\x1f", 2)) for record in log.split("\x1e")[1:]]


def ours(log: str) -> list[Record]:
    """The records of our logger, and those of others that tell of our code."""
    return [
        record
        for record in records(log)
        if record.name == "celery_argsize"
        or (record.level in {"WARNING", "ERROR", "CRITICAL"} and "celery_argsize" in record.text)
    ]
