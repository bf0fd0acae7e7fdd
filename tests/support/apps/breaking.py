"""The app of workload.py, with functions of celery_argsize replaced by ones that raise.

Environment variables choose the functions:

- TEST_BREAK: functions that raise, as "module:qualname" with "," between. They are replaced in all modules that
  imported them.
- TEST_BREAK_TIMES: how many calls of such a function raise in each process, from its first one on.
- TEST_BREAK_BY_TASK: a JSON object, task name → function that raises only while that task is measured.
- TEST_BREAK_HITS: a file that gets a line with the function's name each time that one raises.
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

import celery_argsize.stores.redis  # noqa: F401 - a worker imports it only later, but it must be replaced now

__all__ = ["app"]

#: The text of every error raised here. It must not reach a log, because the text of an error may quote an argument.
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
