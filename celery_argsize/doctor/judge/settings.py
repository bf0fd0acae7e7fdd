"""The checks of the group settings: what settings of an app and options of its tasks do.

Celery's defaults are fine. No check needs live workers or Redis. ``setting_table``
has the checks of names and of kinds of values.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from kombu import serialization

from celery_argsize.doctor import app as apps
from celery_argsize.doctor.app import number_of, own_tasks, setting
from celery_argsize.doctor.checks import Check, fail, ok, warn
from celery_argsize.doctor.judge.host import child_limit, main_process
from celery_argsize.doctor.judge.setting_table import names, values
from celery_argsize.words import counted, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts, Node

#: KiB that no child is meant to take: 64 GiB. A field report had 500 MB in bytes.
ABSURD_CHILD_KIB: Final = 64 << 20
#: KiB that any child takes: with an empty app, 41,000 (Celery 5.7, Python 3.11, Linux).
LEAST_CHILD_KIB: Final = 30_000
#: kombu's names of serializers, such as pickle, and the content types of messages.
_TYPES: Final[dict[str, str]] = vars(serialization)["registry"].name_to_type


def _imports(facts: Facts) -> Outcome:
    if broken := facts.where.broken:
        return fail("a worker would not start", broken, fix="mend that module")
    return ok("the app can be imported", counted(len(own_tasks(facts.app)), "task"))


def _memory(facts: Facts) -> Iterator[Outcome]:
    for worker, kib in child_limits(facts).items():
        yield _judge_limit(facts, kib, worker)._replace(subject=worker)


def _judge_limit(facts: Facts, kib: float, worker: str) -> Outcome:
    if not kib:
        return ok("not set: a child that leaks memory keeps it")
    figure = f"{kib:,.0f} KiB, {size(kib * 1024)} for each child"
    fix = child_limit(facts, option=bool(worker))
    if kib > ABSURD_CHILD_KIB:
        return fail("It is in KiB, and this looks like bytes.", figure, fix=fix)
    if kib < LEAST_CHILD_KIB:
        return fail("An empty child takes more: each task gets a new one.", figure, fix=fix)
    return ok("a child that takes more is replaced after its task", figure)


def child_limits(facts: Facts) -> dict[str, float]:
    """KiB that a child may take: by name of a worker with such an option; ``""``: by the setting."""
    limits = {"": number_of(facts.app, "worker_max_memory_per_child")}
    for node in _nodes(facts):
        process = main_process(facts, node)
        if process and process.max_memory:
            limits[node.name] = process.max_memory
    return limits


def _nodes(facts: Facts) -> tuple[Node, ...]:
    return facts.workers.value.nodes if facts.workers.value else ()


def _concurrency(facts: Facts) -> Outcome:
    figure = f"{facts.conf.worker_concurrency or 'not set'}"
    if host := facts.host.value:
        figure += f", {counted(host.cpus, 'CPU')} here"
    return ok("processes of a worker; its command may say otherwise", figure)


def _prefetch(facts: Facts) -> Outcome:
    name = "worker_prefetch_multiplier"
    messages = number_of(facts.app, name)
    if messages or facts.conf.get("worker_disable_prefetch"):
        return ok("messages that a worker takes for each process", f"{messages:g}")
    reason = "One worker takes all messages, the others stay idle."
    return warn(reason, "0: no limit", fix=setting(facts.app, name, 1))


def _pool_limit(facts: Facts) -> Outcome:
    name = "broker_pool_limit"
    limit = number_of(facts.app, name)
    if limit == 1 and apps.broker_kind(facts.app) != "sqs":  # SQS has no remote control
        reason = "celery inspect and control need two, and wait for ever."
        return warn(reason, "1", fix=setting(facts.app, name, 2))
    figure = f"{limit:g} for each process that sends" if limit else "no pool"
    return ok("connections for messages", figure)


def _result_pool(facts: Facts) -> list[Outcome] | Outcome:
    name = "redis_max_connections"
    if not apps.results_in_redis(facts.app):
        return []
    limit = number_of(facts.app, name)
    if limit == 1:
        reason = "Waiting for a result takes two: Too many connections."
        return fail(reason, "1", fix=setting(facts.app, name, 4))
    return ok("connections for results", f"{limit:g} for each process" if limit else "no limit")


def _result_expires(facts: Facts) -> list[Outcome] | Outcome:
    app, name = facts.app, "result_expires"
    if not apps.results_in_redis(app):
        return []
    value = app.conf[name]
    seconds = value.total_seconds() if isinstance(value, timedelta) else number_of(app, name)
    if seconds:
        return ok("then Redis forgets a result", _seconds(seconds))
    if app.conf.task_ignore_result:
        return ok("no results are stored")
    fix = setting(app, name, 3600) + "  # seconds"
    return warn("Results stay until Redis is full.", "no expiry", fix=fix)


def _ignore_result(facts: Facts) -> Outcome:
    tasks = own_tasks(facts.app) if facts.conf.result_backend else []
    storing = sum(not task.ignore_result for task in tasks)
    figure = f"{storing} of {counted(len(tasks), 'task')} store a result"
    return ok("a result stays until it expires", figure)


def _startup_retry(facts: Facts) -> Outcome:
    name = "broker_connection_retry_on_startup"
    value = facts.conf[name]
    if value is None:
        value = facts.conf.broker_connection_retry  # Celery goes by this one then
    if value:
        return ok("a worker that starts without a broker waits for it")
    fix = setting(facts.app, name, value=True)
    return warn("A worker that starts without a broker ends.", f"{value}", fix=fix)


def _visibility_timeout(facts: Facts) -> list[Outcome] | Outcome:
    app, name = facts.app, "visibility_timeout"
    if (default := apps.VISIBILITY_TIMEOUTS.get(apps.broker_kind(app))) is None:
        return []
    allowed = apps.number(apps.transport_options(app).get(name)) or default
    limit = apps.number(app.conf.task_time_limit or app.conf.task_soft_time_limit)
    late = [task for task in own_tasks(app) if task.acks_late]
    held = [(node.longest_eta or 0, f"{node.name} holds a task") for node in _nodes(facts)]
    running = [(apps.number(task.time_limit) or limit or 0, f"{task.name} may run") for task in late]
    for verdict, times in ((fail, held), (warn, running)):
        longest, words = max(times, default=(0, ""))
        if longest > allowed:
            hours = math.ceil(longest * 1.5 / 3600)
            figure = f"{_seconds(allowed)}, and {words} for {_seconds(longest)}"
            fix = apps.transport_option(app, name, hours * 3600)
            return verdict("Another worker gets the message: it runs twice.", figure, fix=fix)
    return ok("then another worker gets the message", _seconds(allowed))


def _time_limit(facts: Facts) -> Outcome:
    name = "task_soft_time_limit"
    soft, hard = number_of(facts.app, name), number_of(facts.app, "task_time_limit")
    if 0 < hard <= soft:
        figure = f"soft {_seconds(soft)}, hard {_seconds(hard)}"
        reason = "The task is killed before it hears of the soft limit."
        return warn(reason, figure, fix=setting(facts.app, name, round(hard * 0.8, 1)))
    if hard:
        return ok("then the process of a task is killed", _seconds(hard))
    return ok("not set: a task that hangs keeps its process for ever")


def _serializer(facts: Facts) -> list[Outcome] | Outcome:
    app, outcomes = facts.app, []
    serializer, accept = app.conf.task_serializer, [*(app.conf.accept_content or ())]
    accepted = {_TYPES.get(name, name) for name in accept}
    json = setting(app, "task_serializer", "json")
    if _TYPES.get(serializer, serializer) not in accepted:
        figure, fix = f"task_serializer is {serializer}, not in accept_content", json
        if serializer in _TYPES and serializer != "pickle":
            fix = setting(app, "accept_content", [*accept, serializer])
        reason = "Sending fails, or workers throw the messages away."
        outcomes.append(fail(reason, figure, fix=fix))
    if _TYPES["pickle"] in accepted:
        fix = f"{json}\n{setting(app, 'accept_content', ['json'])}"
        reason = "Whoever sends a message can run any code."
        outcomes.append(warn(reason, "accept_content has pickle", fix=fix))
    return outcomes or ok("what is sent is accepted, and no code", ", ".join(sorted(accepted)))


def _seconds(seconds: float) -> str:
    return f"{seconds:,.10g} s"


CHECKS: Final = (
    Check("settings.imports", "whether the app and its tasks can be imported", _imports),
    Check("settings.names", "names that Celery knows", names),
    Check("settings.values", "settings that must be numbers", values),
    Check("settings.max_memory", "worker_max_memory_per_child, in KiB", _memory),
    Check("settings.concurrency", "worker_concurrency, CPUs here", _concurrency),
    Check("settings.prefetch", "worker_prefetch_multiplier", _prefetch),
    Check("settings.broker_pool_limit", "broker_pool_limit", _pool_limit),
    Check("settings.redis_max_connections", "redis_max_connections", _result_pool),
    Check("settings.result_expires", "result_expires", _result_expires),
    Check("settings.ignore_result", "how many tasks store a result", _ignore_result),
    Check("settings.startup_retry", "broker_connection_retry_on_startup", _startup_retry),
    Check("settings.visibility_timeout", "visibility_timeout, time limits, ETAs", _visibility_timeout),
    Check("settings.time_limit", "task_time_limit, task_soft_time_limit", _time_limit),
    Check("settings.serializer", "task_serializer, accept_content", _serializer),
)
