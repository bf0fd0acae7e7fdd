"""Remote control commands that workers answer; imported in workers only. What they are for: ``reset``.

A reset goes in two steps, so that nothing from before it comes back and nothing after it is lost: each worker writes
all it has and then holds back (its own cut between before and after), the store is cleared, and the workers are
released. A worker that is not released holds back for a bounded time only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from celery.worker.control import control_command, inspect_command

from celery_argsize.failure_log import FailureLog
from celery_argsize.worker.monitor import HOLD, RELEASE, installed

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_argsize.figures.counters import Figures, TaskStats
    from celery_argsize.worker.flusher import Flusher

#: Seconds a worker's main loop may spend on one of these: the flusher's thread does the work.
PATIENCE: Final = 0.8

_failures: Final = FailureLog("this worker's part in a reset failed")


@control_command(name=HOLD, visible=False)  # type: ignore[untyped-decorator, unused-ignore]
def hold(state: Any, base: str, seconds: float = 5.0, **_: Any) -> dict[str, Any]:
    """Write all that was measured, then hold back for *seconds*; only workers whose figures are under *base*."""
    return _ask(state, base, lambda flusher: flusher.flush(PATIENCE, hold=seconds))


@control_command(name=RELEASE, visible=False)  # type: ignore[untyped-decorator, unused-ignore]
def release(state: Any, base: str, task: str | None = None, **_: Any) -> dict[str, Any]:
    """Forget this worker's own figures, of *task* or all, and write again; only workers as above."""
    return _ask(state, base, lambda flusher: flusher.release(PATIENCE, forget=True, task=task))


def _ask(state: Any, base: str, what: Callable[[Flusher], bool]) -> dict[str, Any]:
    """The answer of this worker's flusher, if it writes under *base*: all apps on a broker hear the same commands."""
    monitor = installed(state.app)
    if monitor is None or monitor.flusher is None or monitor.flusher.base != base:
        return {"error": "other figures"}
    try:
        return {"ok": what(monitor.flusher)}
    except Exception as exc:  # noqa: BLE001 - kombu would log it whole, each time
        _failures.report(exc)
        return {"ok": False}


NOT_HERE: Final = (
    "celery_argsize does not measure in this worker. Call celery_argsize.install(app) where the app is made, and see "
    "that argsize_enabled is not false"
)


@inspect_command()  # type: ignore[untyped-decorator, unused-ignore]
def argsize(state: Any, **_: Any) -> dict[str, Any]:
    """Sizes of the task arguments that this worker measured itself."""
    monitor = installed(state.app)
    if monitor is None or monitor.flusher is None:
        return {"error": NOT_HERE}
    return _answer(monitor.flusher.own_figures())


def _answer(figures: Figures) -> dict[str, Any]:
    tasks = {name: _task(stats) for name, stats in sorted(figures.tasks.items())}
    return {
        "app": figures.app,
        "since": figures.since,
        "total_tasks": sum(task["count"] for task in tasks.values()),
        "truncated_tasks": sum(task["truncated"] for task in tasks.values()),
        "errors": sum(task["errors"] for task in tasks.values()),
        "last_flush": figures.updated,
        "flush_failures": figures.flush_failures,
        "waiting": figures.waiting,
        "tasks": tasks,
    }


def _task(stats: TaskStats) -> dict[str, int]:
    """One task, named as in the report's JSON; sizes in characters."""
    found = {name: stats.counts.get(name, 0) for name in ("count", "large", "truncated", "unmeasurable", "errors")}
    for part in ("args", "kwargs"):
        largest = stats.maxima.get(f"{part}.max_chars")
        found[f"max_{part}_size"] = largest.value if largest else 0
        runs = stats.counts.get(f"{part}.count", 0)
        found[f"avg_{part}_size"] = round(stats.counts.get(f"{part}.chars", 0) / runs) if runs else 0
    return found
