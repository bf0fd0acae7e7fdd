"""The checks of settings for tasks and their results, and of tasks' own options. Pure."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.checks import counted, fail, ok, warn
from celery_argsize.doctor.setting_values import (
    TYPES,
    as_seconds,
    broker_kind,
    live_nodes,
    number,
    number_of,
    own_tasks,
    results_in_redis,
    transport_option,
    transport_options,
)
from celery_argsize.doctor.spelling import setting

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts

__all__ = ["acks_late", "ignore_result", "result_expires", "serializer", "time_limit", "visibility"]

#: Seconds after which a Redis, or SQS, gives a message that was not acknowledged to another worker: kombu's defaults.
VISIBILITY_TIMEOUTS: Final = {"redis": 3600, "sqs": 1800}
FIELD_RESULT_EXPIRES: Final = 3600
PICKLES: Final = frozenset({"pickle", "application/x-python-serialize"})


def ignore_result(facts: Facts) -> Outcome:
    """task_ignore_result: results that nobody reads."""
    tasks = [task for _, task, _ in own_tasks(facts)]
    ignored = sum(bool(task.ignore_result) for task in tasks)
    if not facts.conf.result_backend:
        return ok("no result backend: nothing is stored")
    figure = f"{len(tasks) - ignored} of {counted(len(tasks), 'task')} store a result"
    return ok("a result that is stored stays until it expires", figure)


def result_expires(facts: Facts) -> list[Outcome] | Outcome:
    """result_expires: how long a Redis keeps a result."""
    if not results_in_redis(facts):
        return []
    value = facts.conf.result_expires
    seconds = value.total_seconds() if hasattr(value, "total_seconds") else number_of(facts, "result_expires")
    stored = any(not task.ignore_result for _, task, _ in own_tasks(facts)) or not facts.conf.task_ignore_result
    if not seconds and stored:
        reason = "Results stay in Redis for ever, until it is full."
        return warn(reason, "no expiry", fix=setting(facts.app, "result_expires", FIELD_RESULT_EXPIRES) + "  # seconds")
    return ok("then Redis forgets a result", as_seconds(seconds)) if seconds else ok("no results are stored")


def visibility(facts: Facts) -> list[Outcome] | Outcome:
    """broker_transport_options["visibility_timeout"] against the longest task, and the farthest ETA."""
    if (default := VISIBILITY_TIMEOUTS.get(broker_kind(facts))) is None:
        return []
    options = transport_options(facts)
    given = number(options.get("visibility_timeout"))
    allowed = default if given is None else given
    reason = "A message that is not acknowledged by then goes to another worker as well: the task runs twice."
    late = [(hard or soft or 0, name) for name, task, (soft, hard) in own_tasks(facts) if task.acks_late]
    held = [(node.longest_eta or 0, node.name) for node in live_nodes(facts)]
    for verdict, waits, does in ((fail, held, "holds a task for"), (warn, late, "may run for")):
        longest, who = max(waits, default=(0, ""))
        if longest > allowed:
            fix = transport_option(facts, "visibility_timeout", -(-int(longest * 1.5) // 3600) * 3600)
            return verdict(reason, f"{as_seconds(allowed)}, and {who} {does} {as_seconds(longest)}", fix=fix)
    return ok("then a message that is not acknowledged goes to another worker", as_seconds(allowed))


def time_limit(facts: Facts) -> Outcome:
    """task_time_limit and task_soft_time_limit."""
    soft, hard = number_of(facts, "task_soft_time_limit"), number_of(facts, "task_time_limit")
    fix = setting(facts.app, "task_soft_time_limit", round((hard or 0) * 4 / 5, 1))
    limits = [("", soft, hard, fix)]
    fix = "a soft_time_limit for this task that is below its time_limit"
    limits += [(name, *both, fix) for name, task, both in own_tasks(facts) if task.soft_time_limit or task.time_limit]
    for name, soft_, hard_, fix_ in limits:
        if soft_ and hard_ and soft_ >= hard_:
            reason = "The hard limit kills the process before the task hears of the soft one: it cannot clean up."
            return warn(reason, f"soft {as_seconds(soft_)}, hard {as_seconds(hard_)}", fix=fix_, subject=name)
    if not hard:
        return ok("not set: a task that hangs keeps its process for ever", f"soft {as_seconds(soft)}" if soft else "")
    return ok("then the process of a task is killed", as_seconds(hard))


def acks_late(facts: Facts) -> Outcome:
    """task_acks_late and task_reject_on_worker_lost."""
    tasks = [(name, task) for name, task, _ in own_tasks(facts)]
    alone = [name for name, task in tasks if task.reject_on_worker_lost and not task.acks_late]
    late = sum(bool(task.acks_late) for _, task in tasks)
    conf = facts.conf
    if alone or (not tasks and conf.task_reject_on_worker_lost and not conf.task_acks_late):
        reason = "reject_on_worker_lost does nothing without acks_late: a task whose process is killed is lost."
        figure = f"{len(alone)} of {len(tasks)} tasks" + (f", such as {alone[0]}" if alone else "")
        fix = setting(facts.app, "task_acks_late", True)  # noqa: FBT003
        return warn(reason, figure, fix=fix if conf.task_reject_on_worker_lost else "acks_late=True for these tasks")
    return ok("tasks whose message is kept until they are done", f"{late} of {len(tasks)}")


def serializer(facts: Facts) -> list[Outcome] | Outcome:
    """task_serializer and accept_content."""
    conf, app = facts.conf, facts.app
    accept = [*(conf.accept_content or ())]
    accepted = {TYPES.get(one, one) for one in accept}
    used = {**{task.serializer: name for name, task, _ in own_tasks(facts)}, conf.task_serializer: "task_serializer"}
    found = []
    for name, where in used.items():
        if name and name not in TYPES and name not in TYPES.values():
            known = sorted(one for one in TYPES if "/" not in one)
            nearest = next(iter(get_close_matches(name, known, 1, 0.0)), "json")
            fix = setting(app, "task_serializer", nearest) if where == "task_serializer" else f"serializer={nearest!r}"
            reason = "kombu has no such serializer: sending a task fails, and so does celery inspect."
            found.append(fail(reason, f"{where} is {name}, and there are {', '.join(known)}", fix=fix))
        elif name and TYPES.get(name, name) not in accepted:
            reason = "Workers throw away such messages: the tasks never run."
            fix = setting(app, "accept_content", [*accept, name])
            fix = setting(app, "task_serializer", "json") if name in PICKLES else fix
            found.append(fail(reason, f"{where} sends {name}, which is not in accept_content", fix=fix))
    if accepted & PICKLES:
        reason = "Whoever can write to the broker can run any code in the workers."
        fix = "\n".join((setting(app, "task_serializer", "json"), setting(app, "accept_content", ["json"])))
        found.append(warn(reason, "accept_content has pickle", fix=fix))
    return found or ok("what is sent is accepted, and is no code", ", ".join(sorted(map(str, accept))))
