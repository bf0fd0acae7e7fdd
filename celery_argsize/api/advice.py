"""The public functions around the advice: get it for an app, apply it to one, check that it has arrived.

What they read is the summary that all workers share, so they work in a producer's process as in any other.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from celery_argsize.advice.advice import TIERS, Advice, ReprLimits
from celery_argsize.advice.adviser import MAX_PUBLISH_SECONDS, MIN_RUNS, advise
from celery_argsize.advice.brokers import broker_name
from celery_argsize.advice.in_force import check_hosts
from celery_argsize.advice.limits import limits_of, set_app_limits, set_repr_limits
from celery_argsize.advice.publish_cost import measure_repr_speed
from celery_argsize.api.figures import get_size_summary
from celery_argsize.api.location import each_app, locate, open_store
from celery_argsize.errors import ConfigError
from celery_argsize.measuring.cuts import DEFAULT_LIMIT
from celery_argsize.worker.monitor import installed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

    from celery_argsize.advice.advice import TaskAdvice
    from celery_argsize.advice.in_force import HostCheck
    from celery_argsize.figures.summary import Summary


def get_advice(  # noqa: PLR0913 - where to look, and two settings
    app: Celery | None = None,
    *,
    broker: str | None = None,
    min_runs: int = MIN_RUNS,
    max_publish_seconds: float = MAX_PUBLISH_SECONDS,
    redis_url: str | None = None,
    key_prefix: str | None = None,
    app_name: str | None = None,
) -> Advice:
    """What to do about truncated reprs, from what was measured so far; see ``advise``.

    *broker* is a kombu transport's name or a URL, by default that of *app* (or of the only app in this process that
    ``install`` was called for). The version of Celery is the installed one. What publishing costs is worked out from
    how fast saferepr is on this machine, which takes about 20 ms to measure.

    Raises:
        ConfigError: it is not clear where to look.
        StoreError: Redis could not be read.
    """
    app = app or (None if redis_url else _installed_app())
    summary = get_size_summary(app, redis_url=redis_url, key_prefix=key_prefix, app_name=app_name)
    return advice_for(summary, app, broker, min_runs=min_runs, max_publish_seconds=max_publish_seconds)


def advice_for(summary: Summary, app: Celery | None, broker: str | None, **tuned: Any) -> Advice:
    """The same for a *summary* that was read before; *tuned* as for ``advise``."""
    return advise(
        summary,
        broker or (broker_name(app) if app is not None else None),
        metadata.version("celery"),
        repr_speed=measure_repr_speed(),
        **tuned,
    )


def _installed_app() -> Celery | None:
    monitor = installed()
    return None if monitor is None else monitor.app


@dataclass(frozen=True, slots=True)
class Configured:
    """What ``auto_configure_celery_limits`` found and did."""

    advice: Advice
    app_limits: ReprLimits | None
    """What was set for all tasks of the app; ``None`` if nothing was."""
    task_limits: Mapping[str, ReprLimits]
    """What was set for single tasks."""
    refused: Mapping[str, str]
    """Task → why nothing was set for it, or, with *force*, why not to."""

    @property
    def limit(self) -> int:
        """The guide's rule of thumb: 1.2 times the largest part, in characters."""
        return self.advice.rule_of_thumb.limit

    @property
    def tier(self) -> int | None:
        """The guide's tier for that."""
        return self.advice.rule_of_thumb.tier

    def __str__(self) -> str:
        """What was done, a line each."""
        lines = [f"all tasks: {self.app_limits}"] if self.app_limits else []
        lines += [f"{name}: {limits}" for name, limits in self.task_limits.items()]
        lines += [
            f"{name}: {'forced, although' if name in self.task_limits else 'refused:'} {why}"
            for name, why in self.refused.items()
        ]
        return "\n".join(lines) or "nothing was set"


def auto_configure_celery_limits(
    app: Celery | None = None, *, apply: bool = False, force: bool = False, **where: Any
) -> Configured:
    """The advice for *app*, and with *apply*, its limits set on it, in this process.

    Limits act where messages are made, so call it where tasks are sent from, once, after the app is configured; the
    summary is read once. Limits are only raised. What would break the broker, or make publishing too slow, is refused,
    and said; *force* sets that too. *where* takes what ``get_advice`` does.

    Raises:
        ConfigError: it is not clear where to look, or, with *apply*, there is no *app*.
        StoreError: Redis could not be read.
    """
    app = app or _installed_app()
    if force and not apply:
        message = "force=True does nothing by itself: auto_configure_celery_limits(app, apply=True, force=True)"
        raise ConfigError(message)
    if apply and app is None:
        message = "apply=True needs the app whose limits to set: auto_configure_celery_limits(app, apply=True)"
        raise ConfigError(message)
    advice = get_advice(app, **where)
    bad = {task.name: task for task in advice.tasks if task.verdict in {"pass_reference", "short_argsrepr"}}
    app_limits, task_limits = None, {}
    if apply and app is not None:
        app_limits = _raised(app, "", advice.limits) if advice.limits else None
        task_limits = advice.per_task | ({name: _forced(task) for name, task in bad.items()} if force else {})
        task_limits = {name: _raised(app, name, limits) for name, limits in task_limits.items()}
        if app_limits is not None:
            set_app_limits(app, app_limits)
        if task_limits:
            set_repr_limits(app, task_limits)
    return Configured(advice, app_limits, task_limits, {name: "; ".join(task.reasons) for name, task in bad.items()})


def _raised(app: Celery, task: str, limits: ReprLimits) -> ReprLimits:
    """*limits*, but none lower than it is already."""
    now = limits_of(app, task)
    levels = 0 if 0 in {limits.levels, now.levels} else max(limits.levels, now.levels)
    return ReprLimits(max(limits.args, now.args), max(limits.kwargs, now.kwargs), levels)


def _forced(task: TaskAdvice) -> ReprLimits:
    """What would keep *task* whole, whatever it breaks."""
    limits = {part.part: part.limit or _above(part.need_max) for part in task.parts}
    levels = max(ReprLimits().levels, *(part.levels for part in task.parts))
    return ReprLimits(limits.get("args", DEFAULT_LIMIT), limits.get("kwargs", DEFAULT_LIMIT), levels)


def _above(need: int) -> int:
    return next((tier.limit for tier in TIERS if need <= tier.limit), need)


def verify_limits(
    app: Celery,
    *,
    seconds: float | None = None,
    redis_url: str | None = None,
    key_prefix: str | None = None,
    app_name: str | None = None,
) -> list[HostCheck]:
    """Whether the limits of *app* are in force where its messages come from, host by host.

    From the headers of messages that workers have received: within the last *seconds*, or else since the last reset
    (and at most seven days). What is wanted is what *app* itself would do in this process.

    Raises:
        ConfigError: it is not clear where to look.
        StoreError: Redis could not be read.
    """
    location = locate(app, redis_url=redis_url, key_prefix=key_prefix, app_name=app_name)
    origins: dict[str, Any] = {}
    for single in each_app(location):
        with open_store(single) as store:
            origins |= store.read_origins()
    return check_hosts(origins, lambda task: limits_of(app, task), time.time() - seconds if seconds else 0.0)
