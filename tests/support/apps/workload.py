"""The app that acceptance tests run: ten tasks, and an oracle that counts independently of the code under test.

The oracle is another ``task_prerun`` handler. It appends one line for each task to the file TEST_ORACLE, with sizes by
json.dumps. It runs before the handler under test. If TEST_ORACLE_AFTER names a file, another oracle runs after that
handler in the children.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import ready  # noqa: F401 - connects a signal when imported
from celery import Celery, signals

import celery_argsize

app = Celery(
    os.environ.get("TEST_APP", "workload"), broker=os.environ["TEST_BROKER"], backend=os.environ.get("TEST_BACKEND")
)
app.conf.update(json.loads(os.environ.get("TEST_CONF", "{}")), broker_connection_retry_on_startup=True)
for limit, characters in json.loads(os.environ.get("TEST_AMQP", "{}")).items():
    setattr(app.amqp, limit, characters)
celery_argsize.install(app, **json.loads(os.environ.get("TEST_SETTINGS", "{}")))


def _size(part: Any) -> int:
    return len(json.dumps(part, ensure_ascii=False, separators=(",", ":"))) if part else 0


def _append(variable: str, line: list[Any]) -> None:
    fd = os.open(os.environ[variable], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, json.dumps(line).encode() + b"\n")
    os.close(fd)


def oracle(task: Any, task_id: str, args: Any, kwargs: Any, **_: Any) -> None:
    _append("TEST_ORACLE", [task.name, task_id, _size(args), _size(kwargs)])


def oracle_after(task: Any, task_id: str, **_: Any) -> None:
    _append("TEST_ORACLE_AFTER", [task.name, task_id, time.time()])


def _connect_after(**_: Any) -> None:
    signals.task_prerun.connect(oracle_after, weak=False)


if "TEST_ORACLE" in os.environ:
    signals.task_prerun.connect(oracle, weak=False)
if "TEST_ORACLE_AFTER" in os.environ:
    signals.worker_process_init.connect(_connect_after, weak=False)


def body(*args: Any, **kwargs: Any) -> int:
    return len(args) + len(kwargs)


for number in range(10):
    app.task(name=f"task_{number}")(body)


@app.task(name="killed", acks_late=False)
def killed(*_: Any) -> None:
    """Kill this child with SIGKILL, as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="slow")
def slow(seconds: float) -> None:
    time.sleep(seconds)


@app.task(name="eager_inside")
def eager_inside(*args: Any) -> None:
    app.tasks["task_0"].apply(args=args)


@app.task(name="eager_many")
def eager_many(count: int) -> None:
    for number in range(count):
        app.tasks["task_0"].apply(args=(number,))


@app.task(name="summary_inside")
def summary_inside() -> Any:
    return celery_argsize.get_size_summary(app).total_tasks


@app.task(name="reset_inside")
def reset_inside() -> None:
    celery_argsize.reset_metrics(app)
