"""Shrinks the pools of live workers, through Celery's remote control only. Asks nobody: the command does that."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kombu.exceptions import OperationalError

from celery_argsize.connections.shrink import Shrink, pool_of, processes_of
from celery_argsize.doctor.look.broker import brokers_of, connection_to, why_not
from celery_argsize.doctor.look.listener import Listener
from celery_argsize.words import cut, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery import Celery

#: Seconds that one worker gets for one answer, in which another of its name would answer too, and between two looks.
_ANSWER: Final = 2.0
_ECHO: Final = 1.0
_PAUSE: Final = 0.1

_BUSY: Final = "All processes busy"  # billiard/pool.py, shrink


class Shrunk(NamedTuple):
    """What came of one step."""

    node: str
    done: bool
    """Whether its pool is as planned, or becomes so by itself."""
    text: str
    """In words."""


def apply_shrink(app: Celery, plan: Iterable[Shrink], timeout: float = 30.0) -> list[Shrunk]:
    """Shrink the pools of live workers as *plan* says; what came of each step.

    A process that runs a task is left to end it; but one that took a task in the same moment, so that its worker does
    not know yet, may go with it, and the task fails with ``WorkerLostError``. A worker with an autoscaler gets a new
    range instead. Nothing else of a worker is changed, and one that starts again has its old concurrency. No pool gets
    below one process, and where two workers have one name, neither is touched. A broker that fails is an outcome too.

    Args:
        app: the app of the workers.
        plan: what to do.
        timeout: seconds for each worker to become idle enough.
    """
    steps, done = [*plan], list[Shrunk]()
    trouble: tuple[type[Exception], ...] = (Exception,)
    try:
        with ExitStack() as stack:
            connection = _connect(app, stack)
            # from here on, others are faults of ours
            trouble = (OSError, OperationalError, *connection.connection_errors, *connection.channel_errors)
            listener = stack.enter_context(Listener(app, connection))
            for step in steps:
                done.append(_shrink(_Remote(listener, step.node), step, timeout))
    except trouble as exc:
        why = f"the broker could not be asked: {why_not(exc)}"
        done += [Shrunk(step.node, done=False, text=why) for step in steps[len(done) :]]
    return done


def _connect(app: Celery, stack: ExitStack) -> Any:
    """The first broker that takes a connection, as workers choose it.

    Not through the app's pool: that waits for ever for a broker that is gone, or if it has room for one connection.
    """
    *urls, last = brokers_of(app)
    for url in urls:
        with suppress(Exception):
            return stack.enter_context(connection_to(app, _ANSWER, url))
    return stack.enter_context(connection_to(app, _ANSWER, last))


class _Remote:
    """One worker, by remote control."""

    def __init__(self, listener: Listener, node: str) -> None:
        self._listener = listener
        self._node = node
        self._pids: set[object] = set()

    def meet(self) -> Mapping[str, Any] | None:
        """What it tells of itself, once another of its name would have been heard; ``None``: no answer."""
        if self.stats() is None:
            return None
        self._listener.listen(lambda: self.twice, time.monotonic() + _ECHO)
        return self.stats()  # brokers that give each question to one of them may give this one to another

    @property
    def twice(self) -> bool:
        """Whether more than one process has answered by its name."""
        return self._node in self._listener.twice or len(self._pids) > 1

    def stats(self) -> Mapping[str, Any] | None:
        """What it tells of itself; ``None``: no answer."""
        if (said := self._ask("stats")) is not None:
            self._pids.add(said.get("pid"))
        return said

    def order(self, command: str, **arguments: int) -> str | None:
        """What came of *command*: empty if it went well, else an error; ``None``: no answer."""
        reply = self._ask(command, **arguments)
        return None if reply is None else str(reply.get("error", ""))

    def _ask(self, question: str, **arguments: int) -> Mapping[str, Any] | None:
        replies = self._listener.replies[question]
        before = replies.get(self._node)
        self._listener.ask({question: arguments}, [self._node], seconds=_ANSWER)
        self._listener.listen(lambda: replies.get(self._node) is not before, time.monotonic() + _ANSWER)
        reply = replies.get(self._node)
        return reply.said if reply and reply is not before and isinstance(reply.said, dict) else None


_SILENT: Final = "did not answer"
_TWICE: Final = (
    "stopped: more than one worker answers by this name, and an order would go to all of them; "
    "give each a name of its own (-n NAME@%h)"
)


def _shrink(worker: _Remote, step: Shrink, timeout: float) -> Shrunk:
    deadline = time.monotonic() + timeout
    stats = worker.meet()
    missed = Shrunk(step.node, done=False, text=_SILENT)
    if worker.twice:
        return missed._replace(text=_TWICE)
    if stats is None:
        return missed
    now, to = processes_of(stats), max(step.to, 1)
    if not now:
        text = "left as it is: only a prefork pool has processes that can go; start it with a smaller --concurrency"
        return missed._replace(text=text)
    if now <= to:
        return Shrunk(step.node, done=True, text=f"has {now} processes by now: nothing to do")
    step = Shrink(step.node, now, to)
    if isinstance(scaler := stats.get("autoscaler"), dict):
        return _narrow(worker, step, int(scaler.get("min") or 0), deadline)
    return _one_by_one(worker, step, deadline)


def _narrow(worker: _Remote, step: Shrink, least: int, deadline: float) -> Shrunk:
    """Give the autoscaler a smaller range; it ends idle processes at once, and busy ones when they are idle."""
    error = worker.order("autoscale", max=step.to, min=min(least, step.to))
    if error != "":
        return Shrunk(step.node, done=False, text=_SILENT if error is None else _refused(error))
    size = _wait_for(worker, step.to, deadline)
    text = f"autoscales up to {step.to} now, instead of {step.now}"
    later = "" if size is None or size <= step.to else f"; {size} processes are there until they are idle"
    return Shrunk(step.node, done=True, text=text + later)


def _one_by_one(worker: _Remote, step: Shrink, deadline: float) -> Shrunk:
    """Order one process away at a time, and wait until it is gone.

    An order for more gives up in its midst if too few are idle (billiard/pool.py, shrink). One that comes before the
    last process is gone counts that one again, so that the worker believes itself smaller than it is. One that a worker
    with a single process gets leaves it with none, for ever.
    """
    size: int | None = step.now
    missed = Shrunk(step.node, done=False, text=_SILENT)
    while size is not None and size > step.to and time.monotonic() < deadline:
        if worker.twice:
            return missed._replace(text=_TWICE)
        error = worker.order("pool_shrink", n=1)
        if error is None:
            return missed
        if not error:
            size = _wait_for(worker, size - 1, deadline)
        elif _BUSY in error:
            time.sleep(_PAUSE)
        else:
            return missed._replace(text=_refused(error))
    if size is None:
        return missed
    if size > step.to:
        so_far = f"{step.now} → {size} processes so far"
        return missed._replace(text=f"{so_far}; the others are busy or ending: run it again to get to {step.to}")
    return Shrunk(step.node, done=True, text=f"{step.now} → {size} processes")


def _size(stats: Mapping[str, Any] | None) -> int | None:
    return None if stats is None else len(pool_of(stats).get("processes") or ())


def _wait_for(worker: _Remote, enough: int, deadline: float) -> int | None:
    """How many processes *worker* has once they are *enough* or fewer, or time is up; ``None``: no answer."""
    while (size := _size(worker.stats())) is not None and size > enough and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return size


def _refused(error: str) -> str:
    return f"refused: {cut(printable(error), 200)}"
