"""Celery's soft time limit while we measure: held back, and raised in the task a moment later.

Its signal raises ``SoftTimeLimitExceeded`` wherever the child happens to be. Within our receiver it
would be lost, as ``Signal.send`` swallows what receivers raise. So our handler, which takes no lock, has
a thread send the signal again, to billiard's own handler, once the task is out of its receivers.
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

#: Seconds between two looks whether the task is out of its receivers.
TICK: Final = 0.001


class SoftLimit:
    """The soft time limit of one process; *receiver* is the code that it must not be raised in."""

    def __init__(self, receiver: CodeType) -> None:
        self._receiver = receiver
        self.watched = False

    def watch(self) -> None:
        """In a pool child, take the signal over until it comes once."""
        if threading.current_thread() is not threading.main_thread():
            return
        self.watched = True
        if _SIGNAL is not None and signal.getsignal(_SIGNAL) is soft_timeout_sighandler:
            signal.signal(_SIGNAL, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        # The next signal goes to billiard's handler, so that the traceback has nothing of ours.
        self.watched = False
        signal.signal(signum, soft_timeout_sighandler)
        stack = _stack(frame)
        tasks = [each for each in stack if each.f_code.co_name == "trace_task" and each.f_globals is vars(trace)]
        in_receiver = any(each.f_code is self._receiver for each in stack)
        try:
            # The outermost task: eager runs within it have no limit. Not threading.Thread, which takes locks.
            _thread.start_new_thread(_send_again, (signum, threading.get_ident(), tasks[-1], in_receiver))
        except (IndexError, RuntimeError):  # no task is running, or no thread can be started
            soft_timeout_sighandler(signum, frame)


def _send_again(signum: int, thread: int, task: FrameType, wait: bool) -> None:  # noqa: FBT001 - called by no other
    """Send the signal to *thread*, with *wait* once it is out of its receivers; not if *task* is over by then."""
    stack = _stack(sys._current_frames().get(thread))  # noqa: SLF001 - the only way to see another thread's frames
    while wait and any(frame.f_code is Signal.send.__code__ for frame in stack):
        time.sleep(TICK)
        stack = _stack(sys._current_frames().get(thread))  # noqa: SLF001
    if task in stack and task.f_locals.get("state") is None:  # Celery sets it when the body has ended
        signal.pthread_kill(thread, signum)


def _stack(frame: FrameType | None) -> list[FrameType]:
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames
