"""Celery's soft time limit, where it comes while we measure: kept back until then, and raised in the task itself.

The limit is a signal, whose handler raises ``SoftTimeLimitExceeded`` wherever the child happens to be. Raised within a
receiver it would never reach the task, as ``Signal.send`` logs and swallows what receivers raise. So our handler does
not raise: it has the signal sent again, to billiard's own handler, by a thread that sees where the task is.

Nothing here takes a lock in a signal handler, and a task whose limit does not come pays next to nothing.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery.app import trace
from celery.utils.dispatch import Signal

if TYPE_CHECKING:
    from types import CodeType, FrameType

_SIGNAL: Final[int | None] = SIG_SOFT_TIMEOUT  # none on Windows

#: Seconds between two looks whether the task has got past its receivers.
TICK: Final = 0.001


class SoftLimit:
    """The soft time limit of one process; *receiver* is the code that it must not be raised in."""

    def __init__(self, receiver: CodeType) -> None:
        self._receiver = receiver
        self.watched = False

    def watch(self) -> None:
        """Take over the signal in this process, if it is a pool child; until it comes."""
        if threading.current_thread() is not threading.main_thread():
            return
        self.watched = True
        if _SIGNAL is not None and signal.getsignal(_SIGNAL) is soft_timeout_sighandler:
            signal.signal(_SIGNAL, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        # From here on billiard's own handler, so that the traceback is the one that it would be without us.
        self.watched = False
        signal.signal(signum, soft_timeout_sighandler)
        stack = _stack(frame)
        tasks = [one for one in stack if one.f_code.co_name == "trace_task" and one.f_globals is vars(trace)]
        ours = any(one.f_code is self._receiver for one in stack)
        try:
            # The outermost: an eager run within it has no limit of its own. And no Thread, which takes locks.
            _thread.start_new_thread(_send_again, (signum, threading.get_ident(), tasks[-1], ours))
        except (IndexError, RuntimeError):  # in no task, or no thread to be had
            soft_timeout_sighandler(signum, frame)


def _send_again(signum: int, thread: int, task: FrameType, wait: bool) -> None:  # noqa: FBT001 - called by no other
    """Send the signal to *thread*; with *wait*, once it is out of its receivers, and unless *task* is over by then."""
    stack = _stack(sys._current_frames().get(thread))  # noqa: SLF001 - the only way to look
    while wait and any(frame.f_code is Signal.send.__code__ for frame in stack):
        time.sleep(TICK)
        stack = _stack(sys._current_frames().get(thread))  # noqa: SLF001 - as above
    if task in stack and task.f_locals.get("state") is None:  # Celery sets it when the body has ended
        signal.pthread_kill(thread, signum)


def _stack(frame: FrameType | None) -> list[FrameType]:
    found = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found
