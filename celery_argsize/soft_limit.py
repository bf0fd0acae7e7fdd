"""Celery's soft time limit, where it comes while we measure: kept back until then, and raised in the task itself.

The limit is a signal, whose handler raises ``SoftTimeLimitExceeded`` wherever the child happens to be. Raised within a
receiver it would never reach the task, as ``Signal.send`` logs and swallows what receivers raise.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery import signals
from celery.utils.dispatch import Signal

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["SoftLimit"]

_SIGNAL: Final[int | None] = SIG_SOFT_TIMEOUT  # none on Windows


class SoftLimit:
    """One process's soft time limit, told from outside when not to raise."""

    #: Seconds between two looks whether the task has got past its signal receivers.
    TICK: Final = 0.001

    __slots__ = ("came", "held", "watched")

    def __init__(self) -> None:
        self.watched = False
        self.held = False
        """Set while the limit must not be raised."""
        self.came = False
        """The limit came while it was held: call ``raise_in_task``."""

    def watch(self) -> None:
        """Take over the signal in this process, if it is a pool child; until it comes."""
        self.watched = True
        if _SIGNAL is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(_SIGNAL) is soft_timeout_sighandler:
            signal.signal(_SIGNAL, self._on_signal)

    def _on_signal(self, *_: Any) -> None:
        self.came = True
        if not self.held:
            self.raise_in_task()

    def raise_in_task(self) -> None:
        """Raise the limit that came, once all receivers are done; not if the task is over by then.

        It is billiard's own handler that raises it, so that the traceback is the one that it would be without us.
        """
        self.came = self.watched = False
        if _SIGNAL is not None:
            signal.signal(_SIGNAL, soft_timeout_sighandler)
        over = threading.Event()

        def on_task_postrun(task: Any = None, **_: Any) -> None:
            if not task.request.is_eager:  # else it ran within the task whose limit it is
                over.set()

        signals.task_postrun.connect(on_task_postrun, weak=False, dispatch_uid=f"celery_argsize.{id(over)}")
        arguments = (threading.get_ident(), over)
        threading.Thread(
            target=self._signal_again, args=arguments, name="celery-argsize-soft-limit", daemon=True
        ).start()

    def _signal_again(self, thread: int, over: threading.Event) -> None:
        while not over.wait(self.TICK):
            if not _sending(sys._current_frames().get(thread)):  # noqa: SLF001 - the only way to look
                signal.pthread_kill(thread, SIG_SOFT_TIMEOUT)
                break
        signals.task_postrun.disconnect(dispatch_uid=f"celery_argsize.{id(over)}")


def _sending(frame: FrameType | None) -> bool:
    """Whether *frame* runs within ``Signal.send``, which swallows exceptions."""
    while frame is not None:
        if frame.f_code is Signal.send.__code__:
            return True
        frame = frame.f_back
    return False
