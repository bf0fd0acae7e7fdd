"""An app whose tasks open every kind of connection: they publish, retry, run chords, write results and wait for them.

``python connected.py produce THREADS SECONDS`` sends tasks from threads. ``python connected.py inspect SECONDS`` asks
the workers and reads the figures, as a person would. If a thread fails, its process ends with an error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ready  # noqa: F401 - connects a signal when imported
from celery import Celery, chord

import celery_argsize

app = Celery("connected", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_BROKER"])
app.conf.update(json.loads(os.environ.get("TEST_CONF", "{}")), broker_connection_retry_on_startup=True)
app.conf.beat_schedule = {"tick": {"task": "add", "schedule": 0.2, "args": (1, 2)}}
celery_argsize.install(app)


@app.task(name="add")
def add(left: int, right: int) -> int:
    return left + right


@app.task(name="total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="publish")
def publish() -> int:
    add.delay(1, 2)
    add.apply_async((1, 2), ignore_result=True)
    return 2


@app.task(name="chorded")
def chorded() -> None:
    chord(add.s(n, n) for n in range(3))(total.s())


@app.task(name="wait_for")
def wait_for(task_id: str) -> Any:
    return app.AsyncResult(task_id).get(timeout=20, disable_sync_subtasks=False)


@app.task(name="again", bind=True, max_retries=1)
def again(self: Any) -> int:
    if self.request.retries:
        return 1
    raise self.retry(countdown=0.05)


@app.task(name="nap")
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def produce(until: float) -> None:
    while time.time() < until:
        done = add.delay(1, 2)
        assert done.get(timeout=30) == 3
        add.apply_async((1, 2), expires=0.000_001)  # expires, so the worker's main process writes that it was revoked
        sent = [publish.delay(), chorded.delay(), again.delay(), wait_for.delay(done.id)]
        publish.apply_async(ignore_result=True)
        for result in sent:
            result.get(timeout=30)


def inspect(until: float) -> None:
    while time.time() < until:
        app.control.inspect(timeout=2).stats()
        celery_argsize.get_size_summary(app)


def main(what: str, *numbers: str) -> None:
    until = time.time() + float(numbers[-1])
    if what == "inspect":
        inspect(until)
        return
    with ThreadPoolExecutor(int(numbers[0])) as pool:
        for ended in [pool.submit(produce, until) for _ in range(int(numbers[0]))]:
            ended.result()


if __name__ == "__main__":
    main(*sys.argv[1:])
