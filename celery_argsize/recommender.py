"""Keeps recommended limits at hand for scrapes, which cannot wait for them: to work them out takes seconds."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from celery_argsize.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_argsize.advice import Advice, ReprLimits

__all__ = ["Recommender"]


class Recommender:
    """What *advise* last recommended, worked out anew in a thread as long as somebody asks."""

    #: Seconds after which it is worked out anew: while it is known, and while it is not, which costs little.
    EVERY: Final = 300.0
    SOON: Final = 15.0
    #: Seconds after which it is too old to be shown.
    OLD: Final = 900.0

    def __init__(self, advise: Callable[[], Advice]) -> None:
        self._advise = advise
        self._limits: ReprLimits | None = None
        self._known_at = self._begun_at = -self.OLD
        self._thread: threading.Thread | None = None
        self._trouble = Trouble("limits cannot be recommended")

    def __call__(self) -> ReprLimits | None:
        """The limits; ``None`` where none are known yet, or not any more. Does not wait."""
        now = time.monotonic()
        due = self._begun_at + (self.SOON if self._limits is None else self.EVERY)
        if now >= due and (self._thread is None or not self._thread.is_alive()):
            self._begun_at = now
            self._thread = threading.Thread(target=self._work, name="celery-argsize-recommender", daemon=True)
            self._thread.start()
        return self._limits if now < self._known_at + self.OLD else None

    def _work(self) -> None:
        try:
            self._limits = self._advise().recommended
            self._known_at = time.monotonic()
        except Exception as exc:  # noqa: BLE001 - a StoreError; any other is our own fault, and keeps no scrape back
            self._trouble.report(exc)
