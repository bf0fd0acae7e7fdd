"""Remote control commands that workers answer; imported in workers only. What they are for: ``reset``.

A reset goes in two steps, so that nothing from before it comes back and nothing after it is lost: each worker writes
all it has and then holds back (its own cut between before and after), the store is cleared, and the workers are
released. A worker that is not released holds back for a bounded time only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from celery.worker.control import control_command

from celery_argsize.monitor import installed
from celery_argsize.reset import HOLD, RELEASE
from celery_argsize.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_argsize.flusher import Flusher

__all__ = ["hold", "release"]

#: Seconds a worker's main loop may spend on one of these: the flusher's thread does the work.
PATIENCE: Final = 0.8

_trouble: Final = Trouble("this worker's part in a reset failed")


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
        _trouble.report(exc)
        return {"ok": False}
