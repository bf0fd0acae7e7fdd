"""Trouble of our own: counted, logged once and then rarely, never passed on to a task.

What counts as trouble is decided where it happens; this only keeps it from flooding the log.
"""

from __future__ import annotations

import logging
import math
import time
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from celery_argsize.errors import ArgsizeError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The one logger of this package.
logger: Final = logging.getLogger("celery_argsize")


class FailureLog:
    """Counts failures of one kind, and logs the first and then at most one every ``EVERY`` seconds.

    Once ``over`` was called, a failure that says something new is logged at once; one that comes and goes all the time
    makes two lines every ``EVERY`` seconds, however often it does.
    """

    EVERY: Final = 60.0
    #: Different things said that are remembered.
    SAID: Final = 16

    def __init__(self, what: str) -> None:
        self._what = what
        self._goes_on = self._was_logged = False
        self._last = -math.inf
        self._said: dict[str, float] = {}
        self._unlogged = 0
        self.count = 0

    def report(self, error: BaseException, level: int = logging.WARNING) -> None:
        """Count *error*, and log it if none was logged lately; where it happened goes to DEBUG. Never raises."""
        self.count += 1
        with suppress(Exception):  # a log handler or filter of the app's may raise
            self._log(error, level)

    @contextmanager
    def caught(self, level: int = logging.WARNING) -> Iterator[None]:
        """Report an exception that the block raises, and go on behind it."""
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - whatever it is, it must not get out
            self.report(exc, level)

    def _log(self, error: BaseException, level: int) -> None:
        # the error's own text may quote an argument, unless it is one of ours
        said = str(error) if isinstance(error, ArgsizeError) else type(error).__name__
        now = time.monotonic()
        last = self._last if self._goes_on else self._said.get(said, -math.inf)
        self._goes_on = True
        if now < last + self.EVERY:
            self._unlogged += 1
            return
        if len(self._said) >= self.SAID:
            self._said.clear()
        self._last = self._said[said] = now
        more = f" ({self._unlogged} more since the last such line)" if self._unlogged else ""
        self._unlogged, self._was_logged = 0, True
        logger.log(level, "celery_argsize: %s: %s%s", self._what, said, more)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("celery_argsize: it happened here:\n%s", "".join(traceback.format_tb(error.__traceback__)))

    def over(self, message: str) -> None:
        """Say, if trouble was logged, that it is over."""
        self._goes_on = False
        if self._was_logged:
            self._was_logged = False
            logger.warning("celery_argsize: %s", message)
