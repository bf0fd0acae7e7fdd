"""The checks of the group settings: what an app's settings and its tasks' own options will do to it. Pure.

Those for connections and for tasks are in ``setting_connections`` and ``setting_tasks``, that of values in
``setting_types``. Every default of Celery is fine here. What is known of live workers, of Redis and of this machine is
used where it is known, and not needed.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.doctor.app import (
    TYPES,
    broker_kind,
    number,
    number_of,
    own_tasks,
    results_in_redis,
    setting,
    spelled,
    transport_option,
    transport_options,
)
from celery_argsize.doctor.checks import Check, fail, ok, warn
from celery_argsize.doctor.judge.setting_names import RESULT_OPTIONS, misnomers, similar_option, values
from celery_argsize.doctor.judge.setting_values import (
    as_seconds,
    as_size,
    live_nodes,
    maxclients,
    memory_here,
    memory_line,
    memory_options,
    processes_here,
)
from celery_argsize.words import counted

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts

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


#: Seconds that a socket may wait: less is too short for a network, and more was probably written in milliseconds.
SOCKET_SECONDS: Final = (0.1, 3600)
#: Seconds, from field reports.
FIELD_SOCKET_TIMEOUT: Final = 30
FIELD_CONNECT_TIMEOUT: Final = 20
#: Connections with which a Redis result backend works: one waits for results, one writes and reads them.
LEAST_RESULT_CONNECTIONS: Final = 2
#: Pools that run all tasks in one process.
SHARING: Final = frozenset({"gevent", "eventlet", "thread"})


def pool_limit(facts: Facts) -> Outcome:
    """broker_pool_limit: connections to the broker."""
    name = "broker_pool_limit"
    limit, most = number_of(facts, name), maxclients(facts, "messages")
    if not limit:
        return ok("no pool: whoever sends a task opens a connection for it", "0")
    if limit == 1 and broker_kind(facts) != "sqs":  # there, Celery has no remote control
        reason = "celery inspect, control and revoke hold a connection while they take another one: they wait for ever."
        return warn(reason, "1 connection for each process that sends", fix=setting(facts.app, name, 2))
    figure = f"{limit:g} connections for each process that sends"
    if most and limit > most:
        reason = "One process that sends in many threads may take every connection that Redis allows."
        return warn(reason, f"{figure}, maxclients {most}", fix=setting(facts.app, name, 4))
    return ok("the most that are kept", figure)


def redis_connections(facts: Facts) -> list[Outcome] | Outcome:
    """redis_max_connections: connections to the result backend."""
    name = "redis_max_connections"
    if not results_in_redis(facts):
        return []
    limit, most = number_of(facts, name), maxclients(facts, "results")
    if not limit:
        return ok("not set: as many connections for results as a process needs at once")
    figure = f"{limit:g} for each process"
    if limit < LEAST_RESULT_CONNECTIONS:
        reason = "Who waits for a result holds one connection, and needs another one: Too many connections."
        return fail(reason, figure, fix=setting(facts.app, name, 4))
    if most and limit > most:
        reason = "One process may take every connection that Redis allows."
        return warn(reason, f"{figure}, maxclients {most}", fix=setting(facts.app, name, 4))
    for node in live_nodes(facts):
        if node.pool in SHARING and node.concurrency > limit:
            reason = "All tasks of this worker share them; with more tasks at once, storing a result can fail."
            fix = setting(facts.app, name, node.concurrency + LEAST_RESULT_CONNECTIONS)
            return warn(reason, f"{figure}, {node.concurrency} tasks at once", fix=fix, subject=node.name)
    return ok("the most that there are for results", figure)


def result_options(facts: Facts) -> list[Outcome] | Outcome:
    """result_backend_transport_options that a Redis result backend does not read."""
    if not results_in_redis(facts):
        return []
    given = facts.conf.result_backend_transport_options or {}
    unread = {name: RESULT_OPTIONS[name] for name in sorted(given) if name in RESULT_OPTIONS}
    if not unread:
        return ok("nothing in it that is not read")
    meant = [(real, given[name]) for name, real in unread.items() if real and isinstance(given[name], (int, float))]
    fix = "\n".join(setting(facts.app, real, value) for real, value in meant) or f"remove {', '.join(unread)}"
    return warn("A Redis result backend does not read these there: they do nothing.", ", ".join(unread), fix=fix)


def redis_socket(facts: Facts) -> list[Outcome] | Outcome:
    """Timeouts of the connections to Redis."""
    options = transport_options(facts)
    numbers = {"socket_timeout": FIELD_SOCKET_TIMEOUT, "socket_connect_timeout": FIELD_CONNECT_TIMEOUT}
    values: list[tuple[str, Any, str]] = []
    for name, told in numbers.items():
        if results_in_redis(facts):
            values.append((f"redis_{name}", facts.conf.get(f"redis_{name}"), setting(facts.app, f"redis_{name}", told)))
        if broker_kind(facts) == "redis":
            values.append((f"broker_transport_options: {name}", options.get(name), transport_option(facts, name, told)))
    found = []
    for name, value, fix in values:
        seconds, (least, most) = number(value), SOCKET_SECONDS
        if seconds is not None and seconds < least:
            found.append(fail("No network is that fast: commands to Redis fail.", f"{name} is {seconds:g} s", fix=fix))
        elif seconds is not None and seconds > most:
            reason = "It is in seconds: a process waits that long for a Redis that is gone."
            found.append(warn(reason, f"{name} is {seconds:g} s", fix=fix))
    return found or ([ok("nothing in them that cannot work")] if values else [])


def startup_retry(facts: Facts) -> Outcome:
    """broker_connection_retry_on_startup."""
    name, conf = "broker_connection_retry_on_startup", facts.conf
    value = conf[name]
    if value if value is not None else conf.broker_connection_retry:
        unset = " (not set; set it, and Celery 6 does the same)" if value is None else ""
        return ok(f"a worker that starts while the broker is away waits for it{unset}")
    reason = "A worker that starts while the broker is away ends, and stays so unless something starts it again."
    return warn(reason, f"{spelled(facts.app, name)} is {value}", fix=setting(facts.app, name, True))  # noqa: FBT003


def heartbeat(facts: Facts) -> list[Outcome] | Outcome:
    """broker_heartbeat: for RabbitMQ."""
    seconds = number_of(facts, "broker_heartbeat")
    if broker_kind(facts) != "amqp":
        return ok("only for RabbitMQ: this broker ignores it", as_seconds(seconds) if seconds else "0")
    if seconds:
        return ok("a connection that is silent for longer is opened anew", as_seconds(seconds))
    reason = "A connection that died silently is not noticed: the worker waits for messages that never come."
    return warn(reason, "0: off", fix=setting(facts.app, "broker_heartbeat", 120))


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
