"""The public functions that give advice, set the advised limits, and verify limits."""

from __future__ import annotations

import time
from contextlib import closing
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
    from typing_extensions import Unpack

    from celery_argsize.advice.advice import TaskAdvice
    from celery_argsize.advice.in_force import HostCheck
    from celery_argsize.api.location import Where
    from celery_argsize.figures.summary import Summary


def get_advice(
    app: Celery | None = None,
    *,
    broker: str | None = None,
    min_runs: int = MIN_RUNS,
    max_publish_seconds: float = MAX_PUBLISH_SECONDS,
    **where: Unpack[Where],
) -> Advice:
    """The advice on the figures so far. Takes 20 ms to measure this machine's speed.

    *broker*: a kombu transport's name or a URL; by default that of the app. *where*:
    ``redis_url``, ``key_prefix``, ``app_name``.

    Raises:
        ConfigError: it is not clear where to look.
        StoreError: Redis could not be read.
    """
    summary = get_size_summary(app, **where)
    app = locate(app, **where).app
    return advice_for(summary, app, broker, min_runs=min_runs, max_publish_seconds=max_publish_seconds)


def advice_for(summary: Summary, app: Celery | None, broker: str | None, **options: Any) -> Advice:
    """The advice on *summary*. *options*: those of ``advise``."""
    return advise(
        summary,
        broker or (broker_name(app) if app is not None else None),
        metadata.version("celery"),
        repr_speed=measure_repr_speed(),
        **options,
    )


@dataclass(frozen=True, slots=True)
class Configured:
    """The result of ``auto_configure_celery_limits``."""

    advice: Advice
    app_limits: ReprLimits | None
    """The limits that were set for all tasks of the app, if any."""
    task_limits: Mapping[str, ReprLimits]
    """The limits that were set for single tasks."""
    refused: Mapping[str, str]
    """Task → the reasons against any limit. Only *force*
    sets limits for such tasks."""

    @property
    def limit(self) -> int:
        """The guide's rule of thumb: 1.2 times the largest part, in characters."""
        return self.advice.rule_of_thumb.limit

    @property
    def tier(self) -> int | None:
        """The limit of the rule of thumb, in characters; ``None`` if none is high enough."""
        return self.advice.rule_of_thumb.tier

    def __str__(self) -> str:
        """A line for each limit that was set or refused."""
        lines = [f"all tasks: {self.app_limits}"] if self.app_limits else []
        lines += [f"{name}: {limits}" for name, limits in self.task_limits.items()]
        for name, reason in self.refused.items():
            lines.append(f"{name}: {'forced, although' if name in self.task_limits else 'refused:'} {reason}")
        return "\n".join(lines) or "nothing was set"


def auto_configure_celery_limits(
    app: Celery | None = None, *, apply: bool = False, force: bool = False, **options: Any
) -> Configured:
    """The advice for *app*; with *apply*, its limits are set on *app* in this process.

    Call it once, in the processes that send tasks, after the app is configured.
    Limits are only raised. A limit that would break the broker or make publishing
    too slow is refused, but set with *force*. *options*: those of ``get_advice``.

    Raises:
        ConfigError: it is not clear where to look; *apply* without an *app*; *force* without *apply*.
        StoreError: Redis could not be read.
    """
    if app is None and (monitor := installed()):
        app = monitor.app
    if force and not apply:
        message = "force=True needs apply=True as well"
        raise ConfigError(message)
    if apply and app is None:
        message = "apply=True needs the app whose limits to set: auto_configure_celery_limits(app, apply=True)"
        raise ConfigError(message)
    advice = get_advice(app, **options)
    bad = {task.name: task for task in advice.tasks if task.verdict in {"pass_reference", "short_argsrepr"}}
    app_limits, task_limits = None, {}
    if apply and app is not None:
        forced = {name: _forced(task) for name, task in bad.items() if force}
        app_limits = _raised(app, "", advice.limits) if advice.limits else None
        task_limits = {name: _raised(app, name, limits) for name, limits in (advice.per_task | forced).items()}
        if app_limits is not None:
            set_app_limits(app, app_limits)
        if task_limits:
            set_repr_limits(app, task_limits)
    return Configured(advice, app_limits, task_limits, {name: "; ".join(task.reasons) for name, task in bad.items()})


def _raised(app: Celery, task: str, limits: ReprLimits) -> ReprLimits:
    """*limits*, but none lower than the present one. 0 levels: no limit."""
    now = limits_of(app, task)
    levels = 0 if 0 in {limits.levels, now.levels} else max(limits.levels, now.levels)
    return ReprLimits(max(limits.args, now.args), max(limits.kwargs, now.kwargs), levels)


def _forced(task: TaskAdvice) -> ReprLimits:
    """The limits that keep all reprs of *task* whole, whatever they break."""
    limits = {}
    for part in task.parts:
        tier = next((tier.limit for tier in TIERS if part.need_max <= tier.limit), part.need_max)
        limits[part.part] = part.limit or tier
    levels = max(ReprLimits().levels, *(part.levels for part in task.parts))
    return ReprLimits(limits.get("args", DEFAULT_LIMIT), limits.get("kwargs", DEFAULT_LIMIT), levels)


def verify_limits(app: Celery, *, seconds: float | None = None, **where: Unpack[Where]) -> list[HostCheck]:
    """Whether the limits that *app* has here are in force on each host that sends its messages.

    Workers read it from message headers: of the last *seconds*, or
    since the last reset (at most seven days). *where*:
    ``redis_url``, ``key_prefix``, ``app_name``.

    Raises:
        ConfigError: it is not clear where to look.
        StoreError: Redis could not be read.
    """
    origins: dict[str, Any] = {}
    for location in each_app(locate(app, **where)):
        with closing(open_store(location)) as store:
            origins |= store.read_origins()
    return check_hosts(origins, lambda task: limits_of(app, task), time.time() - seconds if seconds else 0.0)
