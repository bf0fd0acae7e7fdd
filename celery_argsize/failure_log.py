"""The log of our own failures. They never reach a task, and must not flood the log."""

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
    """Counts failures of one kind. Logs the first, then at most one in ``EVERY`` seconds.

    After ``over``, a failure with a new text is logged at once.
    """

    EVERY: Final = 60.0
    #: Most texts to remember.
    TEXTS: Final = 16

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._goes_on = self._was_logged = False
        self._logged_at: dict[str, float] = {}
        self._last = -math.inf
        self._unlogged = 0
        self.count = 0

    def report(self, error: BaseException, level: int = logging.WARNING) -> None:
        """Count *error*; log it if none was logged lately, with its place at DEBUG. Never raises."""
        self.count += 1
        with suppress(Exception):  # a log handler or filter of the app's may raise
            self._log(error, level)

    @contextmanager
    def caught(self, level: int = logging.WARNING) -> Iterator[None]:
        """Report an exception that the block raises, and go on after the block."""
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - none may get out
            self.report(exc, level)

    def _log(self, error: BaseException, level: int) -> None:
        # The text of another library's error may quote an argument.
        text = str(error) if isinstance(error, ArgsizeError) else type(error).__name__
        now = time.monotonic()
        last = self._last if self._goes_on else self._logged_at.get(text, -math.inf)
        self._goes_on = True
        if now < last + self.EVERY:
            self._unlogged += 1
            return
        if len(self._logged_at) >= self.TEXTS:
            self._logged_at.clear()
        self._last = self._logged_at[text] = now
        more = f" ({self._unlogged} more since the last such line)" if self._unlogged else ""
        self._unlogged, self._was_logged = 0, True
        logger.log(level, "celery_argsize: %s: %s%s", self._kind, text, more)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("celery_argsize: it happened here:\n%s", "".join(traceback.format_tb(error.__traceback__)))

    def over(self, message: str) -> None:
        """Log *message* (the failures are over), if a failure was logged."""
        self._goes_on = False
        if self._was_logged:
            self._was_logged = False
            logger.warning("celery_argsize: %s", message)
