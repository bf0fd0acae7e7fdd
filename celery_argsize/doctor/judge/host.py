"""The checks of the group host: memory of this machine and of its control groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.app import setting
from celery_argsize.doctor.checks import Check, fail, ok, unknown, warn
from celery_argsize.doctor.facts import GET_PSUTIL, NO_PSUTIL
from celery_argsize.words import size

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts

#: Share of the memory in use. A field report has "stable under 80 %" as its measure of success.
WARN_USED: Final = 0.80
FAIL_USED: Final = 0.95
#: Free bytes that are enough, whatever share: four children of the report's 500 MB, and one.
WARN_LEFT: Final = 4 * (500 << 20)
FAIL_LEFT: Final = 500 << 20


def less_memory(facts: Facts, concurrency: int = 1, kib: int = 512000) -> str:
    """Lines that let a worker have fewer and smaller children."""
    app = facts.where.app
    memory = setting(app, "worker_max_memory_per_child", kib)
    line = setting(app, "worker_concurrency", concurrency)
    return f"{memory}  # KiB: {size(kib << 10)}\n{line}"


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
            reason = "The kernel killed processes to get memory, and tasks in them are lost."
            alarm, figure = fail if group.workers else warn, _killed(group.oom_kills)
            outcomes.append(alarm(reason, figure, fix=less_memory(facts), subject=subject))
    # without control groups for memory, only the count of the whole machine is left
    kills = host.oom_kills_since_boot
    counts = [group.oom_kills for _, group in groups if group.oom_kills is not None]
    if kills and not counts:
        reason = "The kernel killed processes to get memory since this machine started."
        fix = f"dmesg -T | grep -i 'killed process'\n{less_memory(facts)}"
        outcomes.append(warn(reason, _killed(kills), fix=fix))
    if not outcomes and (counts or kills is not None):
        figure = f"{_killed(kills)} elsewhere" if kills else ""
        outcomes.append(ok("no limit, and the kernel killed nothing to get memory", figure))
    return outcomes


def _judged(facts: Facts, used: int, total: int, subject: str = "") -> Outcome:
    left, share = max(0, total - used), used / total
    figure = f"{share:.0%} of {size(total)} used, {size(left)} left"
    if share >= FAIL_USED and left < FAIL_LEFT:
        reason = "The kernel will kill a process any moment."
        return fail(reason, figure, fix=less_memory(facts), subject=subject)
    if share >= WARN_USED and left < WARN_LEFT:
        reason = "A few large tasks more, and the kernel kills a process."
        return warn(reason, figure, fix=less_memory(facts), subject=subject)
    return ok("memory is left", figure, subject=subject)


def _killed(count: int) -> str:
    return f"{count} {'process' if count == 1 else 'processes'} killed"


CHECKS: Final = (
    Check("host.memory", "memory that is left on this machine", _memory),
    Check("host.cgroup", "memory left in control groups, and kills", _cgroup),
)
