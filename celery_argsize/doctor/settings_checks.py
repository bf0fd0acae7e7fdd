"""The checks of the group settings: what an app's settings and its tasks' own options will do to it. Pure.

Those for connections and for tasks are in ``setting_connections`` and ``setting_tasks``, that of values in
``setting_types``. Every default of Celery is fine here. What is known of live workers, of Redis and of this machine is
used where it is known, and not needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.checks import Check, counted, fail, ok, warn
from celery_argsize.doctor.setting_connections import (
    heartbeat,
    pool_limit,
    redis_connections,
    redis_socket,
    result_options,
    startup_retry,
)
from celery_argsize.doctor.setting_names import misnomers, similar_option
from celery_argsize.doctor.setting_tasks import (
    acks_late,
    ignore_result,
    result_expires,
    serializer,
    time_limit,
    visibility,
)
from celery_argsize.doctor.setting_types import values
from celery_argsize.doctor.setting_values import (
    as_size,
    broker_kind,
    memory_here,
    memory_line,
    memory_options,
    number_of,
    own_tasks,
    processes_here,
    transport_options,
)
from celery_argsize.doctor.spelling import setting, spelled

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts

__all__ = ["CHECKS"]

#: KiB that a child may take, by a field report: "500 MB", written there in bytes.
FIELD_CHILD_KIB: Final = 500 << 10
#: KiB that no child is meant to take: 64 GiB. Who writes bytes is far above: 500 MB in bytes would be 500 GB.
ABSURD_CHILD_KIB: Final = 64 << 20
#: KiB that a child takes at least: that of an empty app has 41,000 (Celery 5.7, Python 3.11, Linux).
LEAST_CHILD_KIB: Final = 30_000


def imports(facts: Facts) -> Outcome:
    """The app and the modules that imports and include name."""
    if facts.where.broken:
        return fail("a worker would not start", facts.where.broken, fix="mend that module, or take it out of include")
    return ok("the app and the modules of its tasks can be imported", counted(len([*own_tasks(facts)]), "task"))


def names(facts: Facts) -> list[Outcome] | Outcome:
    """Settings that Celery does not know."""
    found = []
    for one in misnomers(facts.app):
        meant = spelled(facts.app, one.meant) if one.meant else ""
        why = f" {one.why}" if one.why else ""
        fix = one.fix or (f"rename {one.written} to {meant}" if meant else f"remove {one.written}")
        nearest = f"; the nearest that it knows is {meant}" if meant else ""
        found.append(warn(f"Celery does not know it, so it does nothing.{why}", f"{one.written}{nearest}", fix=fix))
    options = transport_options(facts)
    for name in map(str, options) if broker_kind(facts) == "redis" else ():
        if meant := similar_option(name):
            fix = f'write "{meant}" instead of "{name}"'
            found.append(warn("The broker's transport does not know this option.", f"{name}, near {meant}", fix=fix))
    return found or ok("Celery knows every setting that is meant for it")


def max_memory(facts: Facts) -> list[Outcome]:
    """worker_max_memory_per_child is in KiB; so is --max-memory-per-child of the live workers here."""
    limits = {"": number_of(facts, "worker_max_memory_per_child"), **memory_options(facts)}
    return [_max_memory(facts, limit, node)._replace(subject=node) for node, limit in limits.items()]


def _max_memory(facts: Facts, limit: float | None, node: str) -> Outcome:
    fix = memory_line(facts, FIELD_CHILD_KIB, node)
    if not limit:
        return ok("not set: a child that leaks memory keeps it until it ends")
    figure = f"{limit:,.0f} KiB, {as_size(limit)} for each child"
    if limit > ABSURD_CHILD_KIB and limit * 1024 > (memory_here(facts) or 0):
        reason = "It is in KiB, and this looks like bytes: no child ever reaches it, and the kernel kills them first."
        return fail(reason, figure, fix=memory_line(facts, round(limit / 1024), node))
    here = [one.rss / 1024 for one in processes_here(facts) if one.rss]
    if limit < (least := max(LEAST_CHILD_KIB, min(here, default=0))):
        reason = f"A child takes {as_size(least)} before it does anything: a new one is started after every task."
        return fail(reason, figure, fix=fix)
    memory = memory_here(facts)
    if here and memory and limit * 1024 > memory:
        reason = f"This machine has {as_size(memory / 1024)} for all: the kernel kills before a child reaches that."
        return warn(reason, figure, fix=fix)
    return ok("a child that takes more is replaced after its task", figure)


def max_tasks(facts: Facts) -> Outcome:
    """worker_max_tasks_per_child renews children."""
    limit = number_of(facts, "worker_max_tasks_per_child")
    return ok("a child is replaced after them", f"{limit:,.0f} tasks") if limit else ok("not set: children stay")


def prefetch(facts: Facts) -> Outcome:
    """worker_prefetch_multiplier: messages that wait in a worker."""
    name = "worker_prefetch_multiplier"
    each = number_of(facts, name)
    if each == 0 and not facts.conf.get("worker_disable_prefetch"):
        reason = "One worker takes every message there is into its memory, and the others stay idle."
        return warn(reason, "0: no limit", fix=setting(facts.app, name, 1) + "  # for long tasks; Celery's own is 4")
    return ok("messages that a worker takes for each process", f"{each or 0:g}")


def concurrency(facts: Facts) -> Outcome:
    """worker_concurrency against the CPUs here."""
    wanted = facts.conf.worker_concurrency
    host = facts.host.found
    cpus = f", {counted(host.cpus, 'CPU')} here" if host else ""
    if not wanted:
        return ok("not set: as many processes as the machine of the worker has CPUs", cpus.removeprefix(", "))
    return ok("processes of a worker, unless its command says otherwise", f"{wanted}{cpus}")


def timezone(facts: Facts) -> Outcome:
    """The timezone must exist."""
    name = str(facts.conf.timezone or ("UTC" if facts.conf.enable_utc else "local time"))
    try:
        _ = facts.app.timezone
    except Exception:  # noqa: BLE001 - what it is depends on the library for time zones
        reason = "There is no such time zone: sending a task with a countdown or an ETA fails."
        return fail(reason, name, fix=setting(facts.app, "timezone", "UTC"))
    return ok("schedules are read in it", name)


CHECKS: Final = (
    Check("settings.imports", "whether the modules of the tasks can be imported", imports),
    Check("settings.names", "names of settings against those that Celery knows", names),
    Check("settings.values", "values of settings against the kinds that Celery and kombu take", values),
    Check("settings.max_memory", "worker_max_memory_per_child, in KiB", max_memory),
    Check("settings.max_tasks_per_child", "worker_max_tasks_per_child", max_tasks),
    Check("settings.concurrency", "worker_concurrency against the CPUs here", concurrency),
    Check("settings.prefetch", "worker_prefetch_multiplier", prefetch),
    Check("settings.broker_pool_limit", "broker_pool_limit against maxclients", pool_limit),
    Check(
        "settings.redis_max_connections", "redis_max_connections against maxclients and concurrency", redis_connections
    ),
    Check("settings.result_connections", "result_backend_transport_options that do nothing", result_options),
    Check("settings.redis_socket", "timeouts of connections to Redis", redis_socket),
    Check("settings.result_expires", "result_expires", result_expires),
    Check("settings.ignore_result", "how many tasks store a result", ignore_result),
    Check("settings.startup_retry", "broker_connection_retry_on_startup", startup_retry),
    Check("settings.heartbeat", "broker_heartbeat", heartbeat),
    Check("settings.visibility_timeout", "visibility_timeout against time limits and ETAs", visibility),
    Check("settings.time_limit", "task_time_limit and task_soft_time_limit", time_limit),
    Check("settings.acks_late", "task_acks_late and task_reject_on_worker_lost", acks_late),
    Check("settings.serializer", "task_serializer and accept_content", serializer),
    Check("settings.timezone", "timezone", timezone),
)
