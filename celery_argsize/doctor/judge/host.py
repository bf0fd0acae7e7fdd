"""The checks of the group host: memory of the machine on which the command runs, and of its control groups. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.app import setting
from celery_argsize.doctor.checks import Check, fail, ok, unknown, warn
from celery_argsize.doctor.facts import GET_PSUTIL, NO_PSUTIL
from celery_argsize.words import size

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import CGroup, Facts

#: Share of the memory that is used: a field report has "stable under 80 %" as its measure of success.
WARN_USED: Final = 0.80
FAIL_USED: Final = 0.95
#: Free bytes that are enough, whatever share they are: four children of the 500 MB that the report gives each; and one.
WARN_LEFT: Final = 4 * (500 << 20)
FAIL_LEFT: Final = 500 << 20


def memory(facts: Facts) -> Outcome:
    """Judge the memory that is left on the machine."""
    host = facts.host.get()
    if host.memory_total is None or host.memory_available is None:
        return unknown(NO_PSUTIL, fix=GET_PSUTIL)
    return _judged(facts, host.memory_total - host.memory_available, host.memory_total, "this machine")


def cgroup(facts: Facts) -> list[Outcome]:
    """Judge the control groups of this process and of the workers here: memory that is left, and who was killed."""
    host = facts.host.get()
    own = {"": host.cgroup} if host.cgroup else {}
    groups = {**own, **{group.path: group for group in host.worker_cgroups}}
    outcomes = []
    for subject, group in groups.items():
        limit, total = group.limit, host.memory_total
        if limit and group.used is not None and (total is None or limit < total):
            outcomes.append(_judged(facts, group.used, limit, "this control group", subject))
        if group.oom_kills:
            outcomes.append(_killed(facts, group, subject))
    counted = any(group.oom_kills is not None for group in groups.values())
    if host.oom_kills_since_boot and not counted:
        reason = "The kernel killed processes to get memory since this machine started; its log says which."
        fix = f"dmesg -T | grep -i 'killed process'\n{_less_memory(facts)}"
        outcomes.append(warn(reason, _processes(host.oom_kills_since_boot), fix=fix))
    if not outcomes and (counted or host.oom_kills_since_boot is not None):
        elsewhere = f"{_processes(host.oom_kills_since_boot)} elsewhere" if host.oom_kills_since_boot else ""
        outcomes.append(ok("no lower limit, and the kernel killed nothing to get memory", elsewhere))
    return outcomes


def _killed(facts: Facts, group: CGroup, subject: str) -> Outcome:
    reason = "The kernel killed processes to get memory: a task that ran in one of them is lost."
    alarm = fail if group.workers else warn
    return alarm(reason, _processes(group.oom_kills or 0), fix=_less_memory(facts), subject=subject)


def _judged(facts: Facts, used: int, total: int, whose: str, subject: str = "") -> Outcome:
    left, share = max(0, total - used), used / total if total else 0.0
    figure = f"{share:.0%} of {size(total)} used, {size(left)} left"
    if share >= FAIL_USED and left < FAIL_LEFT:
        reason = f"The kernel will kill a process of {whose} any moment."
        return fail(reason, figure, fix=_less_memory(facts), subject=subject)
    if share >= WARN_USED and left < WARN_LEFT:
        reason = f"A few large tasks more, and the kernel kills a process of {whose}."
        return warn(reason, figure, fix=_less_memory(facts), subject=subject)
    return ok("memory is left", figure, subject=subject)


def _less_memory(facts: Facts) -> str:
    memory = setting(facts.where.app, "worker_max_memory_per_child", 512000)
    concurrency = setting(facts.where.app, "worker_concurrency", 1)
    return f"{memory}  # KiB: 500 MB\n{concurrency}  # or whatever the memory is enough for"


def _processes(count: int) -> str:
    return f"{count} {'process' if count == 1 else 'processes'} killed"


CHECKS: Final = (
    Check("host.memory", "memory that is left on this machine", memory),
    Check("host.cgroup", "memory that is left in this control group, and what the kernel killed", cgroup),
)
