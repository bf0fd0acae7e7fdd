"""Delays Celery's soft time limit while we measure, so that it is raised in the task.

Billiard's signal handler raises ``SoftTimeLimitExceeded`` wherever the child is.
In our receiver it would be lost, as ``Signal.send`` swallows what receivers
raise. So our handler, which takes no lock, starts a thread. It sends the signal
to billiard's handler once no receiver runs.
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
    """Keeps the soft time limit from being raised in the code of *receiver*."""

    def __init__(self, receiver: CodeType) -> None:
        self._receiver = receiver
        self.watched = False

    def watch(self) -> None:
        """In a pool child: handle the next signal instead of billiard."""
        if threading.current_thread() is not threading.main_thread():
            return
        self.watched = True
        # Windows lacks the signal.
        if SIG_SOFT_TIMEOUT and signal.getsignal(SIG_SOFT_TIMEOUT) is soft_timeout_sighandler:
            signal.signal(SIG_SOFT_TIMEOUT, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        # Billiard gets the second signal: no frame of ours is in the traceback.
        self.watched = False
        signal.signal(signum, soft_timeout_sighandler)
        stack = _stack(frame)
        tasks = [entry for entry in stack if entry.f_code.co_name == "trace_task" and entry.f_globals is vars(trace)]
        in_receiver = any(entry.f_code is self._receiver for entry in stack)
        try:
            # The limit is that of the outermost task.
            # threading.Thread would take locks.
            _thread.start_new_thread(_send_again, (signum, threading.get_ident(), tasks[-1], in_receiver))
        except (IndexError, RuntimeError):  # no task is running, or no thread can be started
            soft_timeout_sighandler(signum, frame)


def _send_again(signum: int, thread: int, task: FrameType, wait: bool) -> None:  # noqa: FBT001 - one caller
    """Send *signum* to *thread*, unless *task* is over. *wait*: only once no receiver runs."""
    while True:
        stack = _stack(sys._current_frames().get(thread))  # noqa: SLF001 - no other way
        if not (wait and any(frame.f_code is Signal.send.__code__ for frame in stack)):
            break
        time.sleep(TICK)
    if task in stack and task.f_locals.get("state") is None:  # Celery sets it at the end of the body
        signal.pthread_kill(thread, signum)


def _stack(frame: FrameType | None) -> list[FrameType]:
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames
