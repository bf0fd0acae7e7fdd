"""Remote control commands that workers answer; imported in workers only. What they are for: ``api.reset_metrics``.

A reset goes in two steps, so that nothing from before it comes back and nothing after it is lost: each worker writes
all it has and then holds back (its own cut between before and after), the store is cleared, and the workers are
released. A worker that is not released holds back for a bounded time only.
"""

from __future__ import annotations

from typing import Any, Final

from celery.worker.control import control_command

from celery_argsize.monitor import installed

__all__ = ["HOLD", "RELEASE"]

HOLD: Final = "argsize_hold"
RELEASE: Final = "argsize_release"

#: Seconds a worker's main loop may spend on one of these: the flusher's thread does the work.
PATIENCE: Final = 0.8


@control_command(name=HOLD, visible=False)  # type: ignore[untyped-decorator, unused-ignore]
def hold(state: Any, seconds: float = 5.0, **_: Any) -> dict[str, Any]:
    """Write all that was measured, then hold back for *seconds*."""
    monitor = installed(state.app)
    if monitor is None or monitor.flusher is None:
        return {"error": "not measuring"}
    return {"ok": monitor.flusher.flush(PATIENCE, hold=seconds)}


@control_command(name=RELEASE, visible=False)  # type: ignore[untyped-decorator, unused-ignore]
def release(state: Any, task: str | None = None, **_: Any) -> dict[str, Any]:
    """Forget this worker's own figures, of *task* or all, and write again."""
    monitor = installed(state.app)
    if monitor is None or monitor.flusher is None:
        return {"error": "not measuring"}
    return {"ok": monitor.flusher.release(PATIENCE, forget=True, task=task)}
