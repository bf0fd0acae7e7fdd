"""The checks of the monitor itself: the guide's way through "nothing is collected", then what is dropped, and limits.

The steps build on each other, so that the first that is not well is the one to mend.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from celery_argsize.advice.limits import limits_of
from celery_argsize.api.location import locate
from celery_argsize.doctor.app import setting
from celery_argsize.doctor.checks import Check, Outcome, fail, ok, warn
from celery_argsize.doctor.facts import Unavailable
from celery_argsize.errors import ArgsizeError
from celery_argsize.redis_url import safe_url
from celery_argsize.words import counted
from celery_argsize.worker.monitor import installed
from celery_argsize.worker.remote_control import NOT_HERE

if TYPE_CHECKING:
    from celery_argsize.advice.advice import ReprLimits
    from celery_argsize.doctor.facts import Facts, Node
    from celery_argsize.settings import Settings

#: A worker that could not write for this long while it had something to: it tries at least once a second, and one
#: failover of a Redis takes less.
STALE_SECONDS: Final = 30.0

_INSTALL: Final = (
    "import celery_argsize\ncelery_argsize.install(app)   # where app = Celery(...) is; then restart workers"
)
_RESTART: Final = "restart this worker; it must import the module that calls celery_argsize.install(app)"


def _installed(facts: Facts) -> Outcome:
    if installed(facts.app) is None:
        return fail("the module that makes the app does not call install", "not installed", fix=_INSTALL)
    return ok("the app calls install", "installed")


def _settings(facts: Facts) -> Outcome:
    try:
        settings = _settings_of(facts)
    except Unavailable as exc:
        if facts.where.app is None:
            raise
        return fail(f"workers run without the monitor: {exc}", "a setting cannot work", fix="correct that setting")
    if not settings.enabled:
        return warn("argsize_enabled is false: nothing is measured", "off", fix="app.conf.argsize_enabled = True")
    if settings.redis_url is None:
        return warn(
            "each worker keeps its figures in its own memory until it stops, and nobody else sees them",
            "no Redis",
            fix="app.conf.argsize_redis_url = 'redis://localhost:6379/0'",
        )
    return ok("figures are kept there", f"{safe_url(settings.redis_url)}, under {settings.base.removesuffix(':')}")


def _settings_of(facts: Facts) -> Settings:
    """The settings of the monitor.

    Raises:
        Unavailable: one of them cannot work, or it is not clear whose are meant.
    """
    facts.where.need_whole()
    try:
        return locate(facts.where.app, **facts.where.given).settings
    except ArgsizeError as exc:
        raise Unavailable(str(exc)) from None


def _nodes(facts: Facts) -> tuple[Node, ...]:
    return facts.workers.get().live()


def _measuring(facts: Facts) -> list[Outcome]:
    return [_measures(node) for node in _nodes(facts)]


def _measures(node: Node) -> Outcome:
    said = node.argsize or {}
    if said.get("error") == NOT_HERE:
        return fail(NOT_HERE, "not measuring", fix=_RESTART, subject=node.name)
    if "total_tasks" not in said:
        return fail(
            "it does not know celery_argsize: it began before install was called, or runs other code",
            "not measuring",
            fix=_RESTART,
            subject=node.name,
        )
    return ok("it measures", f"{counted(said['total_tasks'], 'run')} since it began, or was reset", subject=node.name)


def _ran(facts: Facts) -> Outcome:
    """Have tasks run at all: in live workers, or before, as the figures tell."""
    summary = facts.monitor.get().summary
    total = summary.found.total_tasks if summary.found else 0
    ran = sum(sum(node.totals.values()) for node in facts.workers.found.nodes) if facts.workers.found else 0
    if total or ran:
        return ok("tasks run", f"{counted(ran, 'run')} in live workers, {total:,} in the figures")
    if facts.where.app is not None and facts.conf.task_always_eager:
        return warn(
            "tasks run eagerly, in the process that sends them, and such runs are not counted",
            "task_always_eager",
            fix=f"{setting(facts.app, 'task_always_eager', value=False)}\n"
            "or, to count them: app.conf.argsize_include_eager = True",
        )
    if summary.found is None:
        _nodes(facts)  # raises where those could not be asked either
    return ok("no task has run yet: run a few, and look again after a second", "0 runs")


def _arriving(facts: Facts) -> list[Outcome]:
    """What workers measured must be where we look."""
    monitor = facts.monitor.get()
    settings, summary = _settings_of(facts), monitor.summary.get()
    outcomes = []
    for node in _nodes(facts):
        said = node.argsize
        if not said or "total_tasks" not in said:
            continue
        if said["app"] != settings.app_name:
            outcomes.append(_elsewhere(f"its app_name is {said['app']!r}, here it is {settings.app_name!r}", node))
        elif said["total_tasks"] > said["waiting"] and not summary.total_tasks:
            outcomes.append(_elsewhere("what it wrote is not where we look: another Redis, database or prefix", node))
    written = f"{counted(summary.total_tasks, 'run')} of {counted(len(summary.tasks), 'task name')}"
    return outcomes or [ok("what workers measure is found where we look", written)]


def _elsewhere(reason: str, node: Node) -> Outcome:
    return fail(
        reason,
        "figures go elsewhere",
        fix="give workers and this command the same argsize_redis_url, argsize_key_prefix and argsize_app_name",
        subject=node.name,
    )


def _flushing(facts: Facts) -> list[Outcome]:
    return [_flushes(node) for node in _nodes(facts) if "last_flush" in (node.argsize or ())]


def _flushes(node: Node) -> Outcome:
    said = node.argsize or {}
    last, waiting, failures = said["last_flush"], said["waiting"], said["flush_failures"]
    age = None if last is None else max(0.0, time.time() - last)
    figure = "nothing written yet" if age is None else f"last flush {age:,.0f} s ago"
    figure += f", {counted(waiting, 'run')} waiting, {counted(failures, 'failed attempt')}"
    if waiting and failures and (age is None or age > STALE_SECONDS):
        return fail(
            "it cannot write what it measures; nothing is lost while it runs",
            figure,
            fix="see the worker's log for the line that begins with celery_argsize, and redis.reachable above",
            subject=node.name,
        )
    return ok("", figure, subject=node.name)


def _dropped(facts: Facts) -> Outcome:
    summary = facts.monitor.get().summary.get()
    if summary.errors:
        return warn(
            "errors in celery_argsize kept runs from being measured; the worker's log has each kind",
            f"{summary.errors:,} of {summary.errors + summary.total_tasks:,} runs not measured",
            fix="look for celery_argsize in the worker's log, and report it",
        )
    if summary.other_runs:
        return warn(
            "more task names than are kept apart: the rest is added up under __other__",
            f"{counted(summary.other_runs, 'run')} under __other__",
            fix="raise argsize_max_task_names; or, if names are made at run time, give those tasks one name",
        )
    return ok("nothing was dropped", f"0 of {counted(summary.total_tasks, 'run')}")


def _limits(facts: Facts) -> Outcome:
    """What is advised, against what the app at hand has."""
    monitor = facts.monitor.get()
    advice, summary = monitor.advice.get(), monitor.summary.get()
    figure = f"{counted(advice.truncated, 'truncated repr')} in {counted(summary.total_tasks, 'run')}"
    if advice.verdict in {"nothing", "too_few"}:
        return ok("too few runs for advice" if advice.verdict == "too_few" else "no limit needs raising", figure)
    if advice.verdict in {"apply", "apply_only"}:
        wanted = {"": advice.limits} if advice.limits else advice.per_task
        if facts.where.app is not None and all(_has(facts, name, limits) for name, limits in wanted.items()):
            return ok("the app has the limits that are advised; reset to count afresh", figure)
        return warn(f"{advice.cured:,} of these would be whole with other limits", figure, fix="\n".join(advice.lines))
    return warn(
        "tasks get payloads for which no limit should be raised",
        figure,
        fix="celery -A proj argsize recommend   # what to do for each task",
    )


def _has(facts: Facts, task: str, wanted: ReprLimits) -> bool:
    has = limits_of(facts.app, task)
    levels = has.levels == 0 or 0 < wanted.levels <= has.levels
    return has.args >= wanted.args and has.kwargs >= wanted.kwargs and levels


def _in_force(facts: Facts) -> list[Outcome]:
    hosts = facts.monitor.get().hosts.get()
    outcomes = []
    for host in hosts:
        against = [finding for finding in host.findings if not finding.agrees]
        if against:
            outcomes.append(
                warn(
                    f"its messages are made with lower limits than the app at hand has ({against[0].text})",
                    f"{len(against)} of {len(host.findings)} sightings",
                    fix="deploy and restart what sends tasks on that host; then: celery -A proj argsize verify",
                    subject=host.host,
                )
            )
    return outcomes or [ok("no host sends with other limits than the app at hand has", counted(len(hosts), "host"))]


CHECKS: Final = (
    Check("monitor.installed", "whether the app calls celery_argsize.install", _installed),
    Check("monitor.settings", "the monitor's settings", _settings),
    Check("monitor.measuring", "whether each live worker measures", _measuring),
    Check("monitor.ran", "whether tasks have run", _ran),
    Check("monitor.flushing", "each live worker's last flush, and what waits", _flushing),
    Check("monitor.arriving", "whether what workers measured is where we look", _arriving),
    Check("monitor.dropped", "runs that were not measured, and names that were not kept apart", _dropped),
    Check("monitor.limits", "limits advised against those of the app", _limits),
    Check("monitor.in_force", "limits that messages show against those of the app", _in_force),
)
