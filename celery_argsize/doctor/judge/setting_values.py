"""What the checks of settings read: values as numbers, the app's own tasks, and what is known around it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery_argsize.doctor.app import setting, word_of

if TYPE_CHECKING:
    from celery_argsize.doctor.facts import CeleryProcess, Facts, Node


def as_seconds(seconds: float) -> str:
    """Seconds, for people."""
    return f"{seconds:,.10g} s"


def as_size(kib: float) -> str:
    """KiB, for people."""
    return f"{kib / (1 << 20):,.4g} GB" if kib >= 1 << 20 else f"{kib / 1024:,.4g} MB"


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
    host = facts.host.found
    if host is None:
        return {}
    here = {node.name: host.process(node.pid) for node in live_nodes(facts) if node.hostname == host.hostname}
    return {name: process.max_memory for name, process in here.items() if process and process.max_memory}


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
