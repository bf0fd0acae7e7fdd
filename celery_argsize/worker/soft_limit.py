"""Holds Celery's soft time limit back while we measure. It is raised in the task a moment later.

Its signal raises ``SoftTimeLimitExceeded`` wherever the child happens to be. Within our
receiver it would be lost, as ``Signal.send`` swallows what receivers raise. So our
handler, which takes no lock, starts a thread that sends the signal to billiard's
handler once the task is out of its receivers.
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

#: Seconds between two looks at the task's frames.
TICK: Final = 0.001


class SoftLimit:
    """The soft time limit of one process. It must not be raised in the code of *receiver*."""

    def __init__(self, receiver: CodeType) -> None:
        self._receiver = receiver
        self.watched = False

    def watch(self) -> None:
        """In a pool child, take the next signal over."""
        if threading.current_thread() is not threading.main_thread():
            return
        self.watched = True
        # Windows has no such signal.
        if SIG_SOFT_TIMEOUT and signal.getsignal(SIG_SOFT_TIMEOUT) is soft_timeout_sighandler:
            signal.signal(SIG_SOFT_TIMEOUT, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        # Billiard's handler gets it next, so that no frame of ours is in the traceback.
        self.watched = False
        signal.signal(signum, soft_timeout_sighandler)
        stack = _stack(frame)
        tasks = [each for each in stack if each.f_code.co_name == "trace_task" and each.f_globals is vars(trace)]
        in_receiver = any(each.f_code is self._receiver for each in stack)
        try:
            # The outermost task, as eager runs have no limit. threading.Thread would
            # take locks.
            _thread.start_new_thread(_send_again, (signum, threading.get_ident(), tasks[-1], in_receiver))
        except (IndexError, RuntimeError):  # no task is running, or no thread can be started
            soft_timeout_sighandler(signum, frame)


def _send_again(signum: int, thread: int, task: FrameType, wait: bool) -> None:  # noqa: FBT001 - called by no other
    """Send the signal to *thread*, with *wait* once it is out of receivers, unless *task* is over."""
    stack = _stack(sys._current_frames().get(thread))  # noqa: SLF001 - there is no other way
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
