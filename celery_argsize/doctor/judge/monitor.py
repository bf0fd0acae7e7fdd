"""The checks of the group monitor: why nothing is collected, step by step, then the limits.

Each step needs those before it, so the first that is not well is the one to mend.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.advice.limits import limits_of
from celery_argsize.api.location import locate
from celery_argsize.doctor.app import setting
from celery_argsize.doctor.checks import Check, Outcome, fail, ok, warn
from celery_argsize.errors import ArgsizeError
from celery_argsize.redis_url import safe_url
from celery_argsize.words import counted
from celery_argsize.worker.monitor import installed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from celery_argsize.advice.advice import ReprLimits
    from celery_argsize.doctor.facts import Facts

#: Seconds without a write, though something waits: a worker tries each second.
STALE_SECONDS: Final = 30.0

_INSTALL: Final = "celery_argsize.install(app)  # where app is made; restart workers"
_REDIS: Final = "app.conf.argsize_redis_url = 'redis://localhost:6379/0'"
_SAME: Final = "# set alike: argsize_redis_url, argsize_key_prefix, argsize_app_name"
#: Verdicts of the advice that ask for nothing.
_NO_CHANGE: Final = {"too_few": "too few runs for advice", "nothing": "no limit needs raising"}


def _installed(facts: Facts) -> Outcome:
    if installed(facts.app) is None:
        return fail("the app does not call install", "not installed", fix=_INSTALL)
    try:
        settings = locate(facts.app, **facts.where.given).settings
    except ArgsizeError as exc:
        return fail(f"workers do not measure: {exc}", "a wrong setting", fix="correct it")
    if not settings.enabled:
        return warn("nothing is measured", "off", fix="app.conf.argsize_enabled = True")
    if settings.redis_url is None:
        return warn("each worker keeps its figures to itself", "no Redis", fix=_REDIS)
    figure = f"{safe_url(settings.redis_url)}, under {settings.base.removesuffix(':')}"
    return ok("the app calls install, and figures are kept there", figure)


def _measuring(facts: Facts) -> Iterator[Outcome]:
    answers = _answers(facts)
    for node in facts.workers.get().live():
        if answer := answers.get(node.name):
            figure = f"{counted(answer['total_tasks'], 'run')} since its start or reset"
            if walk := answer.get("walk"):  # older workers do not say
                figure += f", by the {walk} walk"
            yield ok("it measures", figure, subject=node.name)
        else:
            reason = "install was not called when it began, or argsize_enabled is false"
            yield fail(reason, "not measuring", fix="restart this worker", subject=node.name)


def _answers(facts: Facts) -> dict[str, Mapping[str, Any]]:
    """Name of a live worker that measures → its answer to ``inspect argsize``."""
    answers = {node.name: node.argsize or {} for node in facts.workers.get().live()}
    return {name: answer for name, answer in answers.items() if "total_tasks" in answer}


def _flushing(facts: Facts) -> Iterator[Outcome]:
    for name, answer in _answers(facts).items():
        last, waiting, failures = answer["last_flush"], answer["waiting"], answer["flush_failures"]
        age = max(0.0, time.time() - (last or 0))
        figure = f"last flush {age:,.0f} s ago" if last else "nothing written yet"
        figure += f", {counted(waiting, 'run')} waiting, {counted(failures, 'failed attempt')}"
        if waiting and failures and age > STALE_SECONDS:
            reason = "it cannot write its figures; none is lost while it runs"
            fix = "see the worker's log, and redis.reachable"
            yield fail(reason, figure, fix=fix, subject=name)
        else:
            yield ok("", figure, subject=name)


def _arriving(facts: Facts) -> list[Outcome]:
    summary, workers = facts.monitor.get().summary, facts.workers.value
    outcomes = [*_left_out(facts)]
    if outcomes and not (workers and workers.nodes):
        return outcomes
    app_name = locate(facts.where.app, **facts.where.given).settings.app_name
    for name, answer in _answers(facts).items():
        reason = ""
        if answer["app"] != app_name:
            reason = f"its app_name is {answer['app']!r}, here it is {app_name!r}"
        elif answer["total_tasks"] > answer["waiting"] and not summary.total_tasks:
            reason = "it wrote to another Redis, database or prefix"
        if reason:
            outcomes.append(fail(reason, "figures go elsewhere", fix=_SAME, subject=name))
    runs, names = counted(summary.total_tasks, "run"), counted(len(summary.tasks), "task name")
    return outcomes or [ok("what workers measure is found here", f"{runs} of {names}")]


def _left_out(facts: Facts) -> Iterator[Outcome]:
    """Runs that were not measured, or not counted under their name."""
    summary = facts.monitor.get().summary
    if summary.errors:
        figure = f"{summary.errors:,} of {summary.errors + summary.total_tasks:,} runs"
        fix = "report what the worker's log says of celery_argsize"
        yield warn("errors in celery_argsize: runs were not measured", figure, fix=fix)
    if summary.other_runs:
        figure = f"{counted(summary.other_runs, 'run')} under __other__"
        fix = "raise argsize_max_task_names"
        yield warn("more task names than are kept apart", figure, fix=fix)
    if facts.where.app and facts.conf.task_always_eager and not summary.total_tasks:
        line = setting(facts.app, "task_always_eager", value=False)
        fix = f"{line}\n# or:\napp.conf.argsize_include_eager = True"
        yield warn("eager tasks are not counted", "task_always_eager", fix=fix)


def _limits(facts: Facts) -> Iterator[Outcome]:
    yield _advised(facts)
    for host in facts.monitor.get().hosts:
        if lower := [finding for finding in host.findings if not finding.agrees]:
            reason = f"its messages have lower limits than the app ({lower[0].text})"
            figure = f"{len(lower)} of {len(host.findings)} sightings"
            fix = "deploy and restart what sends tasks there"
            yield warn(reason, figure, fix=fix, subject=host.host)


def _advised(facts: Facts) -> Outcome:
    advice, summary = facts.monitor.get().advice, facts.monitor.get().summary
    runs = counted(summary.total_tasks, "run")
    figure = f"{counted(advice.truncated, 'truncated repr')} in {runs}"
    if advice.verdict in _NO_CHANGE:
        return ok(_NO_CHANGE[advice.verdict], figure)
    if advice.verdict not in {"apply", "apply_only"}:
        reason = "tasks get payloads for which no limit should be raised"
        return warn(reason, figure, fix="celery -A proj argsize recommend")
    limits = {"": advice.limits} if advice.limits else advice.per_task
    if facts.where.app and all(_has(facts, *item) for item in limits.items()):
        return ok("the app has the advised limits; reset to count afresh", figure)
    reason = f"{advice.cured:,} of these would be whole with other limits"
    return warn(reason, figure, fix="\n".join(advice.lines))


def _has(facts: Facts, task: str, wanted: ReprLimits) -> bool:
    """Whether the app has the limits *wanted* for *task*, or higher ones."""
    limits = limits_of(facts.app, task)
    levels = limits.levels == 0 or 0 < wanted.levels <= limits.levels
    return limits.args >= wanted.args and limits.kwargs >= wanted.kwargs and levels


CHECKS: Final = (
    Check("monitor.installed", "whether the app calls install, its settings", _installed),
    Check("monitor.measuring", "whether each live worker measures", _measuring),
    Check("monitor.flushing", "last flush of live workers, what waits", _flushing),
    Check("monitor.arriving", "whether all that workers measured is here", _arriving),
    Check("monitor.limits", "limits advised, in messages, of the app", _limits),
)
