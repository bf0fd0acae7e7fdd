"""What the checks of settings read: values as numbers, the app's own tasks, and what is known around it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kombu import serialization

from celery_argsize.doctor.app_words import word_of
from celery_argsize.doctor.checks import NotKnown
from celery_argsize.doctor.queue_facts import own_tasks as names_of_own_tasks
from celery_argsize.doctor.spelling import setting, spelled
from celery_argsize.redis_url import is_redis_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.doctor.facts import Facts
    from celery_argsize.doctor.host_facts import CeleryProcess
    from celery_argsize.doctor.worker_facts import Node

__all__ = [
    "TYPES",
    "as_seconds",
    "as_size",
    "broker_kind",
    "live_nodes",
    "maxclients",
    "memory_here",
    "memory_line",
    "memory_options",
    "number",
    "number_of",
    "own_tasks",
    "processes_here",
    "results_in_redis",
    "transport_option",
    "transport_options",
]

#: kombu's names of serializers, such as pickle → the types that messages carry; celery-types lacks them.
TYPES: Final[dict[str, str]] = vars(serialization)["registry"].name_to_type


def number(value: Any) -> float | None:
    """The number that *value* is; ``None`` where it is none."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def number_of(facts: Facts, name: str) -> float | None:
    """The number that the setting *name* is; ``None`` where it is not set.

    Raises:
        NotKnown: it is none.
    """
    value = facts.conf[name]
    found = number(value)
    if value and found is None:
        raise NotKnown(f"{spelled(facts.app, name)} is not a number: see settings.values")  # noqa: EM102, TRY003
    return found


def transport_options(facts: Facts) -> dict[str, Any]:
    """broker_transport_options, as Celery reads them; empty where that cannot be done."""
    try:
        return {str(name): value for name, value in dict(facts.conf.broker_transport_options or {}).items()}
    except (TypeError, ValueError):
        return {}


def as_seconds(seconds: float) -> str:
    """Seconds, for people."""
    return f"{seconds:,.10g} s"


def as_size(kib: float) -> str:
    """KiB, for people."""
    return f"{kib / (1 << 20):,.4g} GB" if kib >= 1 << 20 else f"{kib / 1024:,.4g} MB"


def own_tasks(facts: Facts) -> Iterator[tuple[str, Any, tuple[float | None, float | None]]]:
    """The app's own tasks: name, task, and its soft and hard time limits in seconds."""
    conf = facts.conf
    for name in names_of_own_tasks(facts.app):
        task: Any = facts.app.tasks[name]
        soft, hard = task.soft_time_limit or conf.task_soft_time_limit, task.time_limit or conf.task_time_limit
        yield name, task, (number(soft), number(hard))


def broker_kind(facts: Facts) -> str:
    """What carries the messages: ``redis``, ``amqp``, ``sqs``."""
    url: Any = facts.conf.broker_read_url or facts.conf.broker_transport or "amqp"
    url = str(url[0] if isinstance(url, (list, tuple)) else url)
    scheme = url.partition(":")[0].lower()
    return (
        "redis" if is_redis_url(url) or scheme == "redis" else {"pyamqp": "amqp", "amqps": "amqp"}.get(scheme, scheme)
    )


def results_in_redis(facts: Facts) -> bool:
    """Whether a Redis keeps the results."""
    return is_redis_url(str(facts.conf.result_backend or ""))


def transport_option(facts: Facts, name: str, value: object) -> str:
    """A line that sets an option and leaves the others, which may be secret, where they are."""
    line = setting(facts.app, "broker_transport_options", {name: value})
    return f"{line.partition(' = ')[0]}[{name!r}] = {value!r}" if facts.conf.broker_transport_options else line


def maxclients(facts: Facts, role: str) -> int | None:
    """How many clients the Redis takes that is used for *role*, as far as known."""
    return min(
        (one.maxclients for one in facts.redis.found or () if role in one.roles and one.maxclients), default=None
    )


def live_nodes(facts: Facts) -> tuple[Node, ...]:
    """The live workers, as far as known."""
    return facts.workers.found.nodes if facts.workers.found else ()


def memory_options(facts: Facts) -> dict[str, float]:
    """Live worker of this machine → the KiB that ``--max-memory-per-child`` of its command line said, if it did."""
    host, workers = facts.host.found, facts.workers.found
    here = [node for node in live_nodes(facts) if host and node.hostname == host.hostname]
    told = {node.name: workers.local[node.pid].max_memory for node in here if workers and node.pid in workers.local}
    return {name: kib for name, kib in told.items() if kib}


def memory_line(facts: Facts, kib: int, node: str = "") -> str:
    """A line that lets children take *kib*: a setting, or the option of the live worker *node*."""
    line = f"celery -A {word_of(facts.app)} worker --max-memory-per-child {kib}"
    return (line if node else setting(facts.app, "worker_max_memory_per_child", kib)) + f"  # KiB: {as_size(kib)}"


def memory_here(facts: Facts) -> int | None:
    """Bytes that all processes here may use, if known."""
    return facts.host.found.memory_limit if facts.host.found else None


def processes_here(facts: Facts) -> list[CeleryProcess]:
    """The processes on this machine of the app's live workers, as far as known."""
    pids = {pid for node in live_nodes(facts) for pid in (node.pid, *node.processes)}
    return [one for one in facts.host.found.processes if one.pid in pids] if facts.host.found else []
