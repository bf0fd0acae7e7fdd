"""Trouble of our own: counted, logged once and then rarely, never passed on to a task.

What counts as trouble is decided where it happens; this only keeps it from flooding the log.
"""

from __future__ import annotations

import logging
import time
import traceback
from contextlib import suppress
from typing import Final

from celery_argsize.errors import ArgsizeError

__all__ = ["Trouble", "logger"]

#: The one logger of this package.
logger: Final = logging.getLogger("celery_argsize")


class Trouble:
    """Counts failures of one kind, and logs the first and then at most one every ``EVERY`` seconds."""

    EVERY: Final = 60.0

    def __init__(self, what: str) -> None:
        self._what = what
        self._silent_until = 0.0
        self._unlogged = 0
        self.count = 0

    def report(self, error: BaseException, level: int = logging.WARNING) -> None:
        """Count *error*, and log it if none was logged lately; where it happened goes to DEBUG. Never raises."""
        self.count += 1
        with suppress(Exception):  # a log handler or filter of the app's may raise
            self._log(error, level)

    def _log(self, error: BaseException, level: int) -> None:
        now = time.monotonic()
        if now < self._silent_until:
            self._unlogged += 1
            return
        more = f" ({self._unlogged} more since the last such line)" if self._unlogged else ""
        self._silent_until, self._unlogged = now + self.EVERY, 0
        # the error's own text may quote an argument, unless it is one of ours
        said = str(error) if isinstance(error, ArgsizeError) else type(error).__name__
        logger.log(level, "celery_argsize: %s: %s%s", self._what, said, more)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("celery_argsize: it happened here:\n%s", "".join(traceback.format_tb(error.__traceback__)))

    def over(self, message: str) -> None:
        """Say, if trouble was logged, that it is over."""
        if self._silent_until:
            self._silent_until = 0.0
            logger.warning("celery_argsize: %s", message)
