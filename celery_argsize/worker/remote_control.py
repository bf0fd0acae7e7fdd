"""Remote control commands that workers answer: two for a reset, and ``celery inspect argsize``.

A reset makes each worker write all it has and then hold, clears the
store, and releases the workers. So no old figures come back. A hold that
nobody releases ends by itself.
"""

# mypy: allow-untyped-decorators
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from celery.worker.control import control_command, inspect_command

from celery_argsize.failure_log import FailureLog
from celery_argsize.worker.monitor import HOLD, RELEASE, installed

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_argsize.figures.counters import TaskStats
    from celery_argsize.worker.flusher import Flusher

#: Most seconds that a command makes the worker's main loop wait for the flusher.
PATIENCE: Final = 0.8

NOT_MEASURING: Final = (
    "celery_argsize does not measure in this worker. Call celery_argsize.install(app) where the app is made, and see "
    "that argsize_enabled is not false"
)

_failures: Final = FailureLog("this worker's part in a reset failed")


@control_command(name=HOLD, visible=False)
def hold(state: Any, base: str, seconds: float = 5.0, **_: Any) -> dict[str, Any]:
    """Write all, then nothing for *seconds*. *base*: prefix of the keys to be reset."""
    return _ask(state, base, lambda flusher: flusher.flush(PATIENCE, hold=seconds))


@control_command(name=RELEASE, visible=False)
def release(state: Any, base: str, task: str | None = None, **_: Any) -> dict[str, Any]:
    """Forget own figures, of *task* or all, and write again. *base*: see ``hold``."""
    return _ask(state, base, lambda flusher: flusher.release(PATIENCE, task=task))


def _ask(state: Any, base: str, act: Callable[[Flusher], bool]) -> dict[str, Any]:
    monitor = installed(state.app)
    # Every app on the broker gets the command.
    if monitor is None or monitor.flusher is None or monitor.flusher.base != base:
        return {"error": "other figures"}
    done = False
    with _failures.caught():  # kombu would log its traceback
        done = act(monitor.flusher)
    return {"ok": done}


@inspect_command()
def argsize(state: Any, **_: Any) -> dict[str, Any]:
    """Sizes of the task arguments that this worker measured itself."""
    monitor = installed(state.app)
    if monitor is None or monitor.flusher is None:
        return {"error": NOT_MEASURING}
    from celery_argsize.measuring.walk import NAME  # noqa: PLC0415 - not for Celery's command line

    figures = monitor.flusher.read()
    tasks = {name: _task(stats) for name, stats in sorted(figures.tasks.items())}

    def total(count: str) -> int:
        return sum(task[count] for task in tasks.values())

    return {
        "app": figures.app,
        "since": figures.since,
        "total_tasks": total("count"),
        "truncated_tasks": total("truncated"),
        "errors": total("errors"),
        "last_flush": figures.updated,
        "flush_failures": figures.flush_failures,
        "waiting": figures.waiting,
        "walk": NAME,
        "tasks": tasks,
    }


def _task(stats: TaskStats) -> dict[str, int]:
    """Figures of one task, named as in the report's JSON. Sizes in characters."""
    counts = stats.counts
    task = {name: counts.get(name, 0) for name in ("count", "large", "truncated", "unmeasurable", "errors")}
    for part in ("args", "kwargs"):
        largest, runs = stats.maxima.get(f"{part}.max_chars"), counts.get(f"{part}.count", 0)
        task[f"max_{part}_size"] = largest.value if largest else 0
        task[f"avg_{part}_size"] = round(counts.get(f"{part}.chars", 0) / runs) if runs else 0
    return task
