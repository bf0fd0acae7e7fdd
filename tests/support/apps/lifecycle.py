"""The app of workload.py, with tasks that end in every possible way, and a record of the signals that Celery sends.

The file TEST_EVENTS gets one line of JSON for each event: [signal, task id, task name, time in seconds]. Each child
also writes an event when it starts.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from celery import chord, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from workload import app

__all__ = ["app"]

EVENTS = Path(os.environ["TEST_EVENTS"])


def note(what: str, task_id: str = "", name: str = "") -> None:
    line = json.dumps([what, task_id, name, time.time()]) + "\n"
    fd = os.open(EVENTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, line.encode())
    os.close(fd)


def on_child_init(**_: Any) -> None:
    note("child")


def on_signal(sender: Any = None, task_id: str = "", request: Any = None, **more: Any) -> None:
    # Signals have different arguments: a task id, a request, or a task with a request.
    request = request or getattr(sender, "request", None)
    note(more["signal"].name, task_id or getattr(request, "id", None) or "", getattr(sender, "name", ""))


signals.worker_process_init.connect(on_child_init, weak=False)
for each in (
    signals.task_prerun,
    signals.task_postrun,
    signals.task_success,
    signals.task_failure,
    signals.task_retry,
    signals.task_revoked,
    signals.task_rejected,
    signals.task_unknown,
    signals.task_internal_error,
):
    each.connect(on_signal, weak=False)


def first_time(task_id: str) -> bool:
    """Whether this is the first call for *task_id*, in any process."""
    try:
        EVENTS.with_name(f"{EVENTS.name}-{task_id}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@app.task(name="add")
def add(*numbers: int) -> int:
    return sum(numbers)


@app.task(name="total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="starts_chords")
def starts_chords() -> None:
    header = [add.s(number, 1).set(task_id=f"header_{number}") for number in range(3)]
    chord(header)(total.s().set(task_id="body"))
    chord([fails.s("in a header").set(task_id="bad_header")])(total.s().set(task_id="body_never_run"))


@app.task(name="sleeper")
def sleeper(*args: Any) -> str:
    """Sleep for the seconds in the last argument, in short pieces, so that signals are handled in between."""
    until = time.monotonic() + args[-1]
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))
    return "slept"


@app.task(name="cleans_up")
def cleans_up(*args: Any) -> str:
    try:
        sleeper(*args)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "slept"


@app.task(name="retries", bind=True, max_retries=2)
def retries(self: Any, good_at: int, payload: str) -> int:
    if self.request.retries < good_at:
        raise self.retry(countdown=0.1, exc=LookupError(f"not yet {len(payload)}"))
    return int(self.request.retries)


@app.task(name="retries_by_itself", bind=True, autoretry_for=(ValueError,), max_retries=2, default_retry_delay=0)
def retries_by_itself(self: Any, good_at: int) -> int:
    if self.request.retries < good_at:
        raise ValueError(good_at)
    return int(self.request.retries)


@app.task(name="changes_its_args", bind=True, max_retries=2, default_retry_delay=0)
def changes_its_args(self: Any, /, numbers: list[int], **words: Any) -> Any:
    numbers.append(len(numbers))
    words["more"] = numbers
    if len(numbers) < 3:
        raise self.retry()
    return [numbers, words]


@app.task(name="loses_its_child", bind=True, acks_late=True, reject_on_worker_lost=True)
def loses_its_child(self: Any, payload: str) -> int:
    if first_time(self.request.id):
        os.kill(os.getpid(), signal.SIGKILL)
    return len(payload)


@app.task(name="rejects", acks_late=True)
def rejects() -> None:
    raise Reject(requeue=False)


@app.task(name="rejects_once", acks_late=True, bind=True)
def rejects_once(self: Any) -> str:
    if first_time(self.request.id):
        raise Reject(requeue=True)
    return "taken"


@app.task(name="ignores")
def ignores() -> None:
    raise Ignore


@app.task(name="fails")
def fails(text: str) -> None:
    raise KeyError(text)


@app.task(name="error_callback", bind=True)
def error_callback(self: Any, *args: Any) -> None:
    note("errback", self.request.id, str(args[0]))


class Unpicklable(Exception):  # noqa: N818 - tests look for this name
    """An error that neither pickle nor JSON can serialize."""

    def __init__(self, number: int, other: int) -> None:
        super().__init__(number)
        self.lock = threading.Lock()
        self.other = other


@app.task(name="fails_unpicklably")
def fails_unpicklably() -> None:
    raise Unpicklable(1, 2)


@app.task(name="unknown_result")
def unknown_result() -> Any:
    """Return a result that JSON cannot serialize."""
    return threading.Lock()


@app.task(name="runs_another")
def runs_another(payload: list[int]) -> list[Any]:
    done = inner.apply(args=(payload,))
    failed = fails.apply(args=("inside",))
    return [done.state, done.result, failed.state, repr(failed.result), payload]


@app.task(name="inner")
def inner(numbers: list[int]) -> int:
    numbers.append(7)
    return sum(numbers)


@app.task(name="limited", rate_limit="5/s")
def limited(number: int) -> float:
    return time.time() + 0 * number


class Hostile:
    """A value without a JSON form. Its methods raise errors that quote the value."""

    def __init__(self, value: str) -> None:
        self.value = value

    def __json__(self) -> str:
        raise RuntimeError(self.value)

    def __repr__(self) -> str:
        raise RuntimeError(self.value)

    __str__ = __repr__


@app.task(name="sends_hostile")
def sends_hostile(value: str) -> None:
    """Send values that only pickle can serialize. This runs in a worker, where their class can be imported."""
    for args in ([Hostile(value)], [[Hostile(value)] * 500, {value: Hostile(value)}]):
        for argsrepr in (f"({value},)", f"([{value}, ...],)"):
            app.send_task("takes", args, serializer="pickle", argsrepr=argsrepr)


@app.task(name="takes")
def takes(*args: Any, **kwargs: Any) -> int:
    return len(args) + len(kwargs)


@app.task(name="runs_eagerly")
def runs_eagerly(value: str) -> None:
    takes.apply(args=([value] * 1000,), kwargs={value: value})
