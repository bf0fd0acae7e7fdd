"""The checks of the group host: memory of this machine and of its control groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.app import setting, word_of
from celery_argsize.doctor.checks import Check, fail, ok, unknown, warn
from celery_argsize.doctor.facts import GET_PSUTIL, NO_PSUTIL
from celery_argsize.words import size

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import CeleryProcess, Facts, Node

#: Share of the memory in use. A field report calls a machine stable under 80 %.
WARN_USED: Final = 0.80
FAIL_USED: Final = 0.95
#: KiB that a child may take: 500 MB, from that report.
CHILD_KIB: Final = 500 << 10
#: Free bytes that are enough at any share: for four such children, and for one.
WARN_LEFT: Final = 4 * (CHILD_KIB << 10)
FAIL_LEFT: Final = CHILD_KIB << 10


def main_process(facts: Facts, node: Node) -> CeleryProcess | None:
    """The main process of a worker, if it runs on this machine."""
    host = facts.host.value
    return host.process(node.pid) if host and host.hostname == node.hostname else None


def child_limit(facts: Facts, kib: int = CHILD_KIB, *, option: bool = False) -> str:
    """A line that replaces children over *kib*: the setting, or the worker's option."""
    line = setting(facts.where.app, "worker_max_memory_per_child", kib)
    if option:
        line = f"celery -A {word_of(facts.app)} worker --max-memory-per-child {kib}"
    return f"{line}  # KiB: {size(kib << 10)}"


def less_memory(facts: Facts, concurrency: int = 1, kib: int = CHILD_KIB) -> str:
    """Lines that let a worker have fewer and smaller children."""
    line = setting(facts.where.app, "worker_concurrency", concurrency)
    return f"{child_limit(facts, kib)}\n{line}"


def _memory(facts: Facts) -> Outcome:
    host = facts.host.get()
    if host.memory_total is None or host.memory_available is None:
        return unknown(NO_PSUTIL, fix=GET_PSUTIL)
    return _judged(facts, host.memory_total - host.memory_available, host.memory_total)


def _cgroup(facts: Facts) -> list[Outcome]:
    """The control groups of this process and of the workers here."""
    host = facts.host.get()
    outcomes: list[Outcome] = []
    groups = [("", host.cgroup)] if host.cgroup else []
    groups += [(group.path, group) for group in host.worker_cgroups]
    for subject, group in groups:
        if group.limit and group.used is not None:
            outcomes.append(_judged(facts, group.used, group.limit, subject))
        if group.oom_kills:
            verdict, figure = fail if group.workers else warn, f"{group.oom_kills} killed"
            reason = "The kernel killed processes for memory; their tasks are lost."
            outcomes.append(verdict(reason, figure, fix=less_memory(facts), subject=subject))
    # without control groups for memory, only the count of the whole machine is left: it may be of any program,
    # and of long ago
    kills = host.oom_kills_since_boot
    counts = [group.oom_kills for _, group in groups if group.oom_kills is not None]
    if kills and not counts:
        reason = "The kernel killed processes for memory since this machine started; were workers among them?"
        fix = "dmesg -T | grep -i 'killed process'"
        outcomes.append(unknown(reason, f"{kills} killed on this machine", fix=fix))
    if not outcomes and (counts or kills is not None):
        figure = f"{kills} killed elsewhere" if kills else ""
        outcomes.append(ok("no limit, and nothing was killed for memory", figure))
    return outcomes


def _judged(facts: Facts, used: int, total: int, subject: str = "") -> Outcome:
    left, share = max(0, total - used), used / total
    figure = f"{share:.0%} of {size(total)} used, {size(left)} left"
    if share < WARN_USED or left >= WARN_LEFT:
        return ok("memory is left", figure, subject=subject)
    verdict, reason = warn, "A few large tasks more, and the kernel kills a process."
    if share >= FAIL_USED and left < FAIL_LEFT:
        verdict, reason = fail, "The kernel will kill a process any moment."
    return verdict(reason, figure, fix=less_memory(facts), subject=subject)


CHECKS: Final = (
    Check("host.memory", "memory that is left on this machine", _memory),
    Check("host.cgroup", "memory left in control groups, and kills", _cgroup),
)
