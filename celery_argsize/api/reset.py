"""The public function that forgets figures. The workers' side: worker/remote_control.py."""

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
#: Seconds after which a worker writes again, even if it was not released.
HOLD_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class ResetResult:
    """What a reset did."""

    task: str | None
    """The task that was reset; ``None``: all."""
    forgotten: int | None
    """Number of tasks that had figures; ``None`` if only the workers know."""
    apps: tuple[str, ...]
    """The apps whose figures were looked for."""
    workers: tuple[str, ...] = ()
    """Live workers that first wrote what they had."""
    failed: tuple[str, ...] = ()
    """Live workers that could not: their last flush interval may come back."""
    note: str = ""
    """Why live workers were not asked; empty if they were."""

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

    Live workers are asked to write what they have first. So nothing from before
    comes back, and nothing measured after is lost. They cannot be asked with a
    ``redis_url`` alone. *where*: ``redis_url``, ``key_prefix``, ``app_name``.

    Raises:
        ConfigError: it is not clear what to reset.
        StoreError: Redis could not be written.
    """
    location = locate(app, **where)
    task = None if task is None else clean(task, NAME_BYTES)
    wrote, note = _hold(location)
    workers = tuple(sorted(name for name, fine in wrote.items() if fine and name))
    failed = tuple(sorted(name for name, fine in wrote.items() if not fine))
    forgotten = None
    try:
        apps = each_app(location)
        # Without a Redis, each live worker forgets its own
        # figures when it is released.
        if location.settings.redis_url or not workers:
            forgotten = sum(_reset(each, task) for each in apps)
    finally:
        _release(location, wrote, task)
    names = tuple(each.settings.app_name for each in apps)
    return ResetResult(task, forgotten, names, workers, failed, note)


def _reset(location: Location, task: str | None) -> int:
    with closing(open_store(location)) as store:
        return store.reset(task)


def _hold(location: Location) -> tuple[dict[str, bool], str]:
    """Have live workers write, then wait. Returns whether each could, and why none was asked."""
    wrote: dict[str, bool] = {}
    app = location.app
    if location.monitor and location.flusher:  # first: this thread may block its event loop
        wrote[location.monitor.hostname] = location.flusher.flush(REPLY_TIMEOUT, hold=HOLD_SECONDS)
    if app is None:
        return wrote, "Live workers were not asked to write first, as only a Redis URL was given."
    try:
        replies = _broadcast(app, HOLD, {"base": location.settings.base, "seconds": HOLD_SECONDS})
    except Exception as exc:  # noqa: BLE001 - brokers raise errors of their own
        return wrote, f"Live workers could not be asked to write first ({type(exc).__name__})."
    for reply in replies or []:
        wrote |= {name: bool(answer["ok"]) for name, answer in reply.items() if "ok" in answer}
    return wrote, ""


def _release(location: Location, wrote: Mapping[str, bool], task: str | None) -> None:
    own = location.monitor.hostname if location.monitor and location.flusher else None
    # Not to workers that did not answer: busy with a long
    # task, they have not written.
    others = [name for name in wrote if name != own]
    if others and location.app is not None:
        with suppress(Exception):  # a hold ends by itself
            _broadcast(location.app, RELEASE, {"base": location.settings.base, "task": task}, others)
    if location.flusher:
        location.flusher.release(REPLY_TIMEOUT, task=task)


def _broadcast(app: Celery, command: str, arguments: dict[str, Any], workers: list[str] | None = None) -> Any:
    """Send *command* to *workers*, or to all and wait for their replies."""
    with app.connection_for_write(connect_timeout=REPLY_TIMEOUT) as connection:
        # Else kombu tries an absent broker a hundred times.
        connection.ensure_connection(max_retries=1, timeout=round(3 * REPLY_TIMEOUT))
        return app.control.broadcast(
            command,
            arguments=arguments,
            destination=workers,
            reply=workers is None,
            timeout=REPLY_TIMEOUT,
            connection=connection,
        )
