"""Splits a worker's log into records, with the name of the logger and the level of each."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["LOG_CONF", "Record", "ours", "records"]

#: Control characters mark the beginning of a record, and separate logger, level and text.
_FORMAT: Final = "\x1e%(name)s\x1f%(levelname)s\x1f%(message)s"

#: Settings for an app whose worker's log will be split with ``records``.
LOG_CONF: Final = {"worker_log_format": _FORMAT, "worker_task_log_format": _FORMAT}


class Record(NamedTuple):
    """One record. Its text includes the lines that follow it, such as a traceback."""

    name: str
    level: str
    text: str


def records(log: str) -> list[Record]:
    """All records in *log*."""
    # Celery prints this line without a logger, so it may follow any record.
    log = log.replace("\nworker: Warm shutdown (MainProcess)\n", "")
    return [Record(*record.split("\x1f", 2)) for record in log.split("\x1e")[1:]]


def ours(log: str) -> list[Record]:
    """The records of our logger, and warnings and errors of other loggers that mention our code."""
    return [
        record
        for record in records(log)
        if record.name == "celery_argsize"
        or (record.level in {"WARNING", "ERROR", "CRITICAL"} and "celery_argsize" in record.text)
    ]
