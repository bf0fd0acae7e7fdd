"""The public function that forgets the figures. worker/remote_control.py has the workers' side of it."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.api.location import each_app, locate, open_store
from celery_argsize.measuring.measurement import NAME_BYTES, clean
from celery_argsize.worker.monitor import HOLD, RELEASE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery
    from typing_extensions import Unpack

    from celery_argsize.api.location import Location, Where

#: Seconds to wait for workers to answer.
REPLY_TIMEOUT: Final = 1.0
#: Seconds that a worker holds back at most, should its release not reach it.
HOLD_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class ResetResult:
    """What a reset did."""

    task: str | None
    """The task that was to be forgotten, or ``None`` for all."""
    forgotten: int | None
    """How many tasks had figures; ``None`` if only the workers know."""
    apps: tuple[str, ...]
    """The apps whose figures were looked for."""
    workers: tuple[str, ...] = ()
    """Live workers that wrote what they had first."""
    failed: tuple[str, ...] = ()
    """Live workers that could not: up to one flush interval from before may come back."""
    note: str = ""
    """Why live workers were not asked, if they were not."""

    def __str__(self) -> str:
        if self.forgotten == 0:
            done = f"There were no figures{f' of {self.task}' if self.task else ''}"
        else:
            done = f"{f'The figures of {self.task}' if self.task else 'All figures'} were reset"
        wrote = f"Workers that wrote what they had first: {', '.join(self.workers)}."
        asked = self.note or (wrote if self.workers else "No live worker answered.")
        lines = [f"{done} (app: {', '.join(self.apps) or 'none found'}).", asked]
        if self.failed:
            lines.append(f"Workers that could not, so that some of theirs may come back: {', '.join(self.failed)}.")
        return "\n".join(lines)


def reset_metrics(app: Celery | None = None, *, task: str | None = None, **where: Unpack[Where]) -> ResetResult:
    """Forget the figures of *task*, or all of them.

    Live workers are asked to write what they have first. So nothing from before comes back, and nothing measured after
    is lost. With a ``redis_url`` alone they cannot be asked. *where* takes ``redis_url``, ``key_prefix`` and
    ``app_name``.

    Raises:
        ConfigError: it is not clear what to reset.
        StoreError: Redis could not be written.
    """
    location = locate(app, **where)
    task = None if task is None else clean(task, NAME_BYTES)
    wrote, note = _hold(location)
    workers = tuple(sorted(name for name, fine in wrote.items() if fine and name))
    failed = tuple(sorted(name for name, fine in wrote.items() if not fine))
    forgotten: dict[str, int | None] = {}
    try:
        for single in each_app(location):
            if single.settings.redis_url is None and workers:
                forgotten[single.settings.app_name] = None  # each worker forgets its own when it is released
                continue
            with closing(open_store(single)) as store:
                forgotten[single.settings.app_name] = store.reset(task)
    finally:
        _release(location, wrote, task)
    total = None if None in forgotten.values() else sum(count or 0 for count in forgotten.values())
    return ResetResult(task, total, tuple(forgotten), workers, failed, note)


def _hold(location: Location) -> tuple[dict[str, bool], str]:
    """Have live workers write and hold back: whether each could, or else why none was asked."""
    wrote: dict[str, bool] = {}
    monitor, app = location.monitor, location.app
    if monitor is not None and monitor.flusher is not None:  # first, as this worker's loop may be waiting for us
        wrote[monitor.hostname] = monitor.flusher.flush(REPLY_TIMEOUT, hold=HOLD_SECONDS)
    if app is None:
        return wrote, "Live workers were not asked to write first, as only a Redis URL was given."
    try:
        replies = _broadcast(app, HOLD, {"base": location.settings.base, "seconds": HOLD_SECONDS})
    except Exception as exc:  # noqa: BLE001 - each broker library has errors of its own
        return wrote, f"Live workers could not be asked to write first ({type(exc).__name__})."
    for reply in replies or []:
        wrote |= {name: bool(answer["ok"]) for name, answer in reply.items() if "ok" in answer}
    return wrote, ""


def _release(location: Location, wrote: Mapping[str, bool], task: str | None) -> None:
    monitor, app = location.monitor, location.app
    own = monitor.hostname if monitor is not None and monitor.flusher is not None else None
    # Only those that answered: one that hears both late, after a long task, does not know what came before.
    others = [name for name in wrote if name != own]
    if others and app is not None:
        with suppress(Exception):  # each broker library has errors of its own; a hold ends by itself
            _broadcast(app, RELEASE, {"base": location.settings.base, "task": task}, others)
    if monitor is not None and monitor.flusher is not None:
        monitor.flusher.release(REPLY_TIMEOUT, task=task)


def _broadcast(app: Celery, command: str, arguments: dict[str, Any], workers: list[str] | None = None) -> Any:
    """Send *command* to *workers*, or to all and wait for their replies."""
    with app.connection_for_write(connect_timeout=REPLY_TIMEOUT) as connection:
        # Without this, an absent broker would be tried a hundred times.
        connection.ensure_connection(max_retries=1, timeout=round(3 * REPLY_TIMEOUT))
        return app.control.broadcast(
            command,
            arguments=arguments,
            destination=workers,
            reply=workers is None,
            timeout=REPLY_TIMEOUT,
            connection=connection,
        )
