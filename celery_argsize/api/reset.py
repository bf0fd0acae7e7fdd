"""Start afresh: forget the figures, with live workers asked first so that the cut between before and after is clean.

The workers' side of it is ``control``.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.api.location import Location, each_app, locate, open_store
from celery_argsize.measuring.measurement import NAME_BYTES, clean
from celery_argsize.worker.monitor import HOLD, RELEASE

if TYPE_CHECKING:
    from celery import Celery

#: Seconds to wait for workers to answer.
REPLY_TIMEOUT: Final = 1.0
#: Seconds a worker holds back at most, should the release not reach it.
HOLD_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class ResetResult:
    """What a reset did."""

    task: str | None
    """The task that was to be forgotten, or ``None`` for all."""
    forgotten: int | None
    """How many tasks had figures; ``None`` where only the workers know."""
    apps: tuple[str, ...]
    """The apps that were looked at."""
    workers: tuple[str, ...] = ()
    """Live workers that wrote all they had before, so that nothing from before the reset comes back."""
    failed: tuple[str, ...] = ()
    """Live workers that could not: up to one flush interval from before may come back."""
    note: str = ""
    """Why live workers were not asked, where they were not."""

    def __str__(self) -> str:
        apps = f"(app: {', '.join(self.apps) or 'none found'})"
        if self.forgotten == 0:
            lines = [f"There were no figures{f' of {self.task}' if self.task else ''} {apps}."]
        else:
            lines = [f"{f'The figures of {self.task}' if self.task else 'All figures'} were reset {apps}."]
        if self.note:
            lines.append(self.note)
        elif self.workers:
            lines.append(f"Workers that wrote what they had first: {', '.join(self.workers)}.")
        else:
            lines.append("No live worker answered.")
        if self.failed:
            lines.append(
                f"Workers that could not: {', '.join(self.failed)}; up to one flush interval from before may come back."
            )
        return "\n".join(lines)


def reset_metrics(
    app: Celery | None = None,
    *,
    task: str | None = None,
    redis_url: str | None = None,
    key_prefix: str | None = None,
    app_name: str | None = None,
) -> ResetResult:
    """Forget the figures of *task*, or all of them, to start afresh after a change.

    Live workers are asked (through Celery's remote control) to write what they have first, so that nothing from before
    comes back, and nothing measured after is lost. With a *redis_url* alone there is no way to ask them: what is
    stored is forgotten, and the result says so.

    Raises:
        ConfigError: it is not clear what to reset.
        StoreError: Redis could not be written.
    """
    location = locate(app, redis_url=redis_url, key_prefix=key_prefix, app_name=app_name)
    task = None if task is None else clean(task, NAME_BYTES)
    hold = _hold(location)
    try:
        done = {single.settings.app_name: _reset(single, task, hold) for single in each_app(location)}
    finally:
        _release(location, hold, task)
    counts = [count for count in done.values() if count is not None]
    forgotten = sum(counts) if len(counts) == len(done) else None
    return ResetResult(task, forgotten, tuple(done), hold.written, hold.failed, hold.note)


def _reset(location: Location, task: str | None, hold: _Hold) -> int | None:
    if location.settings.redis_url is None and hold.written:
        return None  # each worker forgets its own when it is released
    with open_store(location) as store:
        return store.reset(task)


# -- live workers --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Hold:
    """Which live workers wrote what they had and hold back now, which could not, and why none was asked."""

    written: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    answered: tuple[str, ...] = ()
    """Those of them in other processes, who answered through remote control."""
    note: str = ""


def _hold(location: Location) -> _Hold:
    """Ask live workers to write and hold back, the one in this process first: its loop may be waiting for us."""
    answers: dict[str, bool] = {}
    answered: tuple[str, ...] = ()
    note = ""
    monitor = location.monitor
    if monitor is not None and monitor.flusher is not None:
        answers[monitor.hostname] = monitor.flusher.flush(REPLY_TIMEOUT, hold=HOLD_SECONDS)
    if location.app is None:
        note = "Live workers were not asked to write what they have first, as only a Redis URL was given."
    else:
        try:
            replies = _broadcast(location, HOLD, {"seconds": HOLD_SECONDS}, reply=True)
        except Exception as exc:  # noqa: BLE001 - each broker library has errors of its own
            note = f"Live workers could not be asked to write what they have first ({type(exc).__name__})."
        else:
            said = {name: answer for reply in replies or [] for name, answer in reply.items()}
            heard = {name: bool(answer["ok"]) for name, answer in said.items() if "ok" in answer}
            answered = tuple(heard.keys() - answers.keys())
            answers.update(heard)
    written = tuple(sorted(name for name, wrote in answers.items() if wrote and name))
    failed = tuple(sorted(name for name, wrote in answers.items() if not wrote))
    return _Hold(written, failed, answered, note)


def _release(location: Location, hold: _Hold, task: str | None) -> None:
    # Only those that answered: one that hears both late, after a long task, has no cut to forget anything by.
    if hold.answered:
        with suppress(Exception):  # each broker library has errors of its own; a hold ends by itself
            _broadcast(location, RELEASE, {"task": task}, reply=False, destination=hold.answered)
    if location.monitor is not None and location.monitor.flusher is not None:
        location.monitor.flusher.release(REPLY_TIMEOUT, task=task)


def _broadcast(
    location: Location,
    command: str,
    arguments: dict[str, Any],
    *,
    reply: bool,
    destination: tuple[str, ...] | None = None,
) -> Any:
    assert location.app is not None  # noqa: S101 - for mypy
    with location.app.connection_for_write(connect_timeout=REPLY_TIMEOUT) as connection:
        # Without this, an absent broker would be tried a hundred times.
        connection.ensure_connection(max_retries=1, timeout=round(3 * REPLY_TIMEOUT))
        return location.app.control.broadcast(
            command,
            arguments={**arguments, "base": location.settings.base},
            destination=destination and list(destination),
            reply=reply,
            timeout=REPLY_TIMEOUT,
            connection=connection,
        )
