"""The checks of settings for connections: to the broker and to the result backend. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from celery_argsize.doctor.checks import fail, ok, warn
from celery_argsize.doctor.setting_names import RESULT_OPTIONS
from celery_argsize.doctor.setting_values import (
    as_seconds,
    broker_kind,
    live_nodes,
    maxclients,
    number,
    number_of,
    results_in_redis,
    transport_option,
    transport_options,
)
from celery_argsize.doctor.spelling import setting, spelled

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts

__all__ = ["heartbeat", "pool_limit", "redis_connections", "redis_socket", "result_options", "startup_retry"]

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
