"""The checks of the group host: memory, swap, CPUs and control group of the machine on which the command runs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.app import setting
from celery_argsize.doctor.checks import Check, fail, ok, unknown, warn
from celery_argsize.doctor.facts import GET_PSUTIL, NO_PSUTIL, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import CGroup, Facts, HostFacts

#: Of the memory: a field report has "stable under 80 %" as its measure of success.
WARN_USED: Final = 0.80
FAIL_USED: Final = 0.95
#: Bytes that, when free, are enough whatever share that is: on a large machine 10 % is a lot. Four children of
#: the 500 MB that the report gives each; and one of them.
WARN_LEFT: Final = 4 * (500 << 20)
FAIL_LEFT: Final = 500 << 20
#: Bytes a second that go to swap and come from it at the same time: 256 pages each.
THRASHING: Final = 1 << 20
#: Processes that want to run, for each CPU, in the mean of 15 minutes: far beyond what being busy takes.
OVERLOAD: Final = 4.0


def memory(facts: Facts) -> Outcome:
    """Memory that is left on the machine."""
    host = facts.host.get()
    if host.memory_total is None or host.memory_available is None:
        return _no_psutil()
    return _judged(host.memory_total - host.memory_available, host.memory_total, "this machine", facts)


def cgroup(facts: Facts) -> list[Outcome]:
    """Memory that is left in the control groups of this process and of the workers here."""
    host = facts.host.get()
    limited = [(whose, one) for whose, one in _groups(host) if one.limit and one.used is not None]
    limited = [(whose, one) for whose, one in limited if (one.limit or 0) < (host.memory_total or float("inf"))]
    return [
        _judged(one.used or 0, one.limit or 0, "this control group", facts)._replace(subject=whose)
        for whose, one in limited
    ]


def oom_kills(facts: Facts) -> list[Outcome] | Outcome:
    """Processes that the kernel has killed to get memory."""
    host = facts.host.get()
    known = [(whose, one) for whose, one in _groups(host) if one.oom_kills is not None]
    since_boot = host.oom_kills_since_boot
    if killed := [(whose, one) for whose, one in known if one.oom_kills]:
        reason = "The kernel killed processes to get memory: a task that ran in one of them is lost."
        fix = _less_memory(facts)
        return [
            (fail if one.workers else warn)(reason, _killed(one.oom_kills or 0), fix=fix, subject=whose)
            for whose, one in killed
        ]
    if known:
        elsewhere = f"{since_boot} elsewhere on the machine" if since_boot else ""
        return ok("the kernel killed nothing in this control group to get memory", elsewhere)
    if since_boot is None:
        raise Unavailable("only Linux says what the kernel has killed")  # noqa: EM101, TRY003 - the reason
    if since_boot:
        reason = "The kernel killed processes to get memory since this machine started; its log says which."
        return warn(reason, _killed(since_boot), fix=f"dmesg -T | grep -i 'killed process'\n{_less_memory(facts)}")
    return ok("the kernel killed nothing to get memory since this machine started")


def swap(facts: Facts) -> Outcome:
    """Whether memory is swapped to and fro; that some lies there hurts nobody."""
    host = facts.host.get()
    if host.swap_total is None:
        return _no_psutil()
    if not host.swap_total:
        return ok("no swap")
    figure = f"{_size(host.swap_used or 0)} of {_size(host.swap_total)} used"
    into, out = host.swap_in_per_second or 0.0, host.swap_out_per_second or 0.0
    if min(into, out) >= THRASHING:
        reason = "Memory is swapped to and fro all the time: everything is slow, and workers miss their heartbeats."
        return warn(reason, f"{figure}, {_size(into)} in and {_size(out)} out a second", fix=_less_memory(facts))
    return ok("nothing is swapped to and fro", figure)


def cpus(facts: Facts) -> Outcome:
    """The load against the CPUs of the machine."""
    host = facts.host.get()
    if host.load is None:
        raise Unavailable("this system does not say its load")  # noqa: EM101, TRY003 - the reason
    figure = f"load {host.load[2]:.3g} in 15 minutes, {host.machine_cpus} CPUs"
    if min(host.load[1:]) >= OVERLOAD * host.machine_cpus:
        reason = "Far more wants to run than there are CPUs: tasks take longer, and workers miss their heartbeats."
        fix = setting(facts.where.app, "worker_concurrency", host.cpus)
        return warn(reason, figure, fix=f"{fix}  # for all workers of this machine together")
    return ok("the CPUs keep up", figure)


def container(facts: Facts) -> Outcome:
    """Whether workers start more processes than the container has CPUs: Celery counts those of the machine."""
    host = facts.host.get()
    if not host.container and host.cpu_quota is None:
        return ok("in no container that shows")
    limit = f", {_size(host.cgroup.limit)}" if host.cgroup and host.cgroup.limit else ""
    figure = f"{host.container or 'a control group'}: {host.cpus} of {host.machine_cpus} CPUs{limit}"
    mains = [one.pid for one in host.processes if one.kind == "worker"]
    most = max((sum(one.ppid == pid for one in host.processes) for pid in mains), default=0)
    if host.machine_cpus >= 2 * host.cpus and most >= host.machine_cpus:
        reason = "A worker started one process for each CPU of the machine, more than it may use here."
        fix = setting(facts.where.app, "worker_concurrency", host.cpus)
        return warn(reason, f"{figure}, {most} processes", fix=fix)
    return ok("what a worker may use here", figure)


def _judged(used: int, total: int, whose: str, facts: Facts) -> Outcome:
    left, share = max(0, total - used), used / total if total else 0.0
    figure = f"{share:.0%} of {_size(total)} used, {_size(left)} left"
    if share >= FAIL_USED and left < FAIL_LEFT:
        return fail(f"The kernel will kill a process of {whose} any moment.", figure, fix=_less_memory(facts))
    if share >= WARN_USED and left < WARN_LEFT:
        return warn(
            f"A few large tasks more, and the kernel kills a process of {whose}.", figure, fix=_less_memory(facts)
        )
    return ok("memory is left", figure)


def _groups(host: HostFacts) -> Iterator[tuple[str, CGroup]]:
    if host.cgroup:
        yield "", host.cgroup
    for one in host.worker_cgroups:
        yield one.path, one


def _no_psutil() -> Outcome:
    return unknown(NO_PSUTIL, fix=GET_PSUTIL)


def _less_memory(facts: Facts) -> str:
    app = facts.where.app
    return "\n".join(
        (
            setting(app, "worker_max_memory_per_child", 512000) + "  # KiB: 500 MB",
            setting(app, "worker_concurrency", 1) + "  # or whatever the memory is enough for",
        )
    )


def _killed(count: int) -> str:
    return f"{count} {'process' if count == 1 else 'processes'} killed"


def _size(size: float) -> str:
    for unit in ("bytes", "KB", "MB"):
        if size < 1024:  # noqa: PLR2004 - what KB and MB are
            return f"{size:.3g} {unit}" if size < 100 else f"{size:.0f} {unit}"  # noqa: PLR2004 - three digits
        size /= 1024
    return f"{size:,.3g} GB"


CHECKS: Final = (
    Check("host.memory", "memory that is left on this machine", memory),
    Check("host.cgroup", "memory that is left in this control group", cgroup),
    Check("host.oom_kills", "processes that the kernel killed to get memory", oom_kills),
    Check("host.swap", "what is swapped in and out in a second", swap),
    Check("host.cpus", "load against CPUs", cpus),
    Check("host.container", "CPUs of this container against processes of a worker", container),
)
