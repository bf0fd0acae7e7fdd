"""The app of workload.py, with faults in celery_argsize itself: functions of it that raise.

What is broken is told by the environment:

- TEST_BREAK: what raises, "module:qualname", several with "," between; wherever it was imported to.
- TEST_BREAK_TIMES: only its first so many calls in each process raise.
- TEST_BREAK_BY_TASK: one such target for each task name, as JSON; it raises only while that task is measured.
- TEST_BREAK_HITS: a file that gets a line with the target each time that something raised.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
from collections import Counter
from typing import Any

from celery import signals
from workload import app

import celery_argsize.stores.redis  # noqa: F401 - to be broken, as a worker imports it later

__all__ = ["app"]

#: The text of every error that is raised here. It must not reach a log: an error's text may quote an argument.
SECRET = "sesame-open-4711"

_calls: Counter[str] = Counter()
_running: dict[str, str] = {"task": ""}


def fail(target: str) -> None:
    fd = os.open(os.environ["TEST_BREAK_HITS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{target}\n".encode())
    os.close(fd)
    raise RuntimeError(SECRET)


def broken(target: str, works: Any, task: str | None) -> Any:
    times = int(os.environ["TEST_BREAK_TIMES"])

    @functools.wraps(works)
    def function(*args: Any, **kwargs: Any) -> Any:
        if task is None:
            _calls[target] += 1
            if _calls[target] <= times:
                fail(target)
        elif task == _running["task"]:
            fail(target)
        return works(*args, **kwargs)

    return function


def break_it(target: str, task: str | None = None) -> None:
    module_name, qualname = target.split(":")
    owner: Any = importlib.import_module(module_name)
    *parents, name = qualname.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    works = getattr(owner, name)
    if parents:
        setattr(owner, name, broken(target, works, task))
        return
    function = broken(target, works, task)
    for module in [module for key, module in sys.modules.items() if key.startswith("celery_argsize")]:
        for imported, value in [*vars(module).items()]:
            if value is works:
                setattr(module, imported, function)


def on_task_prerun(task: Any, **_: Any) -> None:
    _running["task"] = task.name


signals.task_prerun.connect(on_task_prerun, weak=False)
for each in filter(None, os.environ["TEST_BREAK"].split(",")):
    break_it(each)
for task_name, each in json.loads(os.environ["TEST_BREAK_BY_TASK"]).items():
    break_it(each, task_name)
