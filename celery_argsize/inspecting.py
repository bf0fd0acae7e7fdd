"""``celery inspect argsize``: what each live worker measured itself, since it started or was reset, and how it fares.

Celery's command line must know the command too, so it imports this at every start (through ``cli``): nothing of ours is
imported at the top. A worker that measures has all it takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from celery.worker.control import inspect_command

if TYPE_CHECKING:
    from celery_argsize.stats import Figures, TaskStats

__all__ = ["argsize"]

NOT_HERE: Final = (
    "celery_argsize does not measure in this worker. Call celery_argsize.install(app) where the app is made, and see "
    "that argsize_enabled is not false"
)


@inspect_command()  # type: ignore[untyped-decorator, unused-ignore]
def argsize(state: Any, **_: Any) -> dict[str, Any]:
    """Sizes of the task arguments that this worker measured itself."""
    from celery_argsize.monitor import installed  # noqa: PLC0415 - see the top

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
