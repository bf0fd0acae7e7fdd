"""What this machine says: memory, control groups, and the Celery processes on it.

Memory and processes come from psutil, an extra; control groups, and what the kernel killed, from files of Linux. Of a
command line, only what ``CeleryProcess`` names is kept.
"""

from __future__ import annotations

import math
import os
import re
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from celery.bin.celery import celery as celery_command
from celery.bin.worker import worker as worker_command

from celery_argsize.doctor.facts import CeleryProcess, CGroup, HostFacts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery_argsize.doctor.facts import Scope

#: Bytes from which on a limit is none: version 1 of control groups writes about 2**63.
_NO_LIMIT: Final = 1 << 60


def look_at_host(_: Scope, root: Path = Path("/")) -> HostFacts:
    """Look at this machine. *root*: the folder with ``proc`` and ``sys``."""
    facts = HostFacts(
        hostname=socket.gethostname(),
        cpus=_cpus(root),
        oom_kills_since_boot=_number(_fields(root / "proc/vmstat").get("oom_kill")),
        cgroup=_memory_group(root, "self"),
    )
    try:
        import psutil  # noqa: PLC0415 - an extra
    except ImportError:
        return replace(facts, psutil_missing=True)
    memory, processes = psutil.virtual_memory(), tuple(_celery_processes(psutil))
    groups: dict[str, CGroup] = {}
    for process in processes:
        if group := _memory_group(root, str(process.pid)):
            workers = groups[group.path].workers if group.path in groups else 0
            groups[group.path] = replace(group, workers=workers + 1)
    own = groups.pop(facts.cgroup.path, facts.cgroup) if facts.cgroup else None
    return replace(
        facts,
        memory_total=memory.total,
        memory_available=memory.available,
        processes=processes,
        cgroup=own,
        worker_cgroups=tuple(groups[path] for path in sorted(groups)),
    )


def _celery_processes(psutil: Any) -> Iterator[CeleryProcess]:
    """Workers with what they started, and Beats. A fork has the command line of its parent."""
    seen: dict[int, tuple[Any, CeleryProcess]] = {}
    for process in psutil.process_iter(["ppid", "cmdline"]):
        celery = process_of(process.info["cmdline"] or [], process.pid, process.info["ppid"] or 0)
        if celery:
            seen[process.pid] = process, celery
    mains = {pid for pid, (_, celery) in seen.items() if celery.kind == "worker" and celery.ppid not in seen}
    for pid, (process, celery) in seen.items():
        with suppress(psutil.Error, OSError):  # it ended meanwhile, or is another user's
            if celery.ppid in mains:
                child = replace(celery, kind="child", beat=False)
                yield replace(child, rss=process.memory_info().rss, created=process.create_time())
            elif pid in mains or celery.kind == "beat":  # else a task started it
                yield replace(celery, **_details(psutil, process))


def _details(psutil: Any, process: Any) -> dict[str, Any]:
    """What is looked at of a worker or a Beat."""
    network = "net_connections" if hasattr(process, "net_connections") else "connections"  # before psutil 6
    info = process.as_dict(["status", "cwd", network])  # None: this user may not see it
    remote = [connection for connection in info[network] or () if connection.raddr]
    return {
        "rss": process.memory_info().rss,
        "created": process.create_time(),
        "stopped": info["status"] == psutil.STATUS_STOPPED,
        "folder": info["cwd"] or "",
        "ports": None if info[network] is None else frozenset(connection.raddr.port for connection in remote),
        "ends": frozenset(_end(*connection.laddr) for connection in remote),
    }


def own_ends() -> frozenset[str]:
    """``CeleryProcess.ends`` of this process; empty where they may not be seen."""
    try:
        import psutil  # noqa: PLC0415 - an extra
    except ImportError:
        return frozenset()
    return frozenset(_details(psutil, psutil.Process())["ends"])


def _end(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


#: What setproctitle writes over a command line: "[celeryd: celery@h:MainProcess] -active- (-A proj worker -l info)",
#: "[celeryd: celery@h:ForkPoolWorker-1]", "[celery beat] -A proj beat -l info".
_TITLE: Final = re.compile(r"\[(celeryd|celery beat)(?::.*?:(?P<process>[^\]:]*))?\]\s*(?P<rest>.*)", re.DOTALL)
_PYTHON: Final = re.compile(r"(python|pypy)[\d.w]*(\.exe)?", re.IGNORECASE)
#: Options of Python itself that take the next word as well.
_PYTHON_VALUES: Final = ("-W", "-X", "--check-hash-based-pycs")
_SCRIPTS: Final = ("celery", "celery.exe", "celery-script.py")


def process_of(command: Sequence[str], pid: int = 0, ppid: int = 0) -> CeleryProcess | None:
    """What the process with the command line *command* is, if it is of Celery. A fork looks like its parent."""
    title = _TITLE.match(" ".join(command))
    if "--billiard-fork" in command or (title and title["process"] not in {None, "MainProcess"}):
        return CeleryProcess(pid=pid, ppid=ppid, kind="child")
    options, words = _parsed(celery_command, _titled(title) if title else _arguments(command))
    kind, app = words[0] if words else "", str(options.get("app") or "")
    if kind == "beat":
        return CeleryProcess(pid=pid, ppid=ppid, kind="beat", beat=True, app=app)
    if kind != "worker":
        return None
    options, _ = _parsed(worker_command, words[1:])
    pool, memory = str(options.get("pool") or ""), _number(options.get("max_memory_per_child")) or 0
    beat = bool(options.get("beat"))
    return CeleryProcess(pid=pid, ppid=ppid, kind="worker", beat=beat, app=app, pool=pool, max_memory=memory)


def _titled(title: re.Match[str]) -> list[str]:
    """The words in *title*; without any, whether it is a worker or a Beat."""
    if title["process"]:
        words = title["rest"].partition("(")[2].rpartition(")")[0].split()
        return words if "worker" in words else ["worker"]
    words = title["rest"].split()
    return words if "beat" in words else ["beat"]


def _arguments(command: Sequence[str]) -> list[str]:
    """The words after ``celery`` or ``python -m celery``; none if another program runs."""
    words = [word.replace("\\", "/") for word in command]
    if words and _PYTHON.fullmatch(Path(words[0]).name):
        del words[0]
        while words and words[0].startswith("-") and words[0] not in {"-m", "-c"}:
            del words[: 2 if words[0] in _PYTHON_VALUES else 1]
        if words[:2] == ["-m", "celery"]:
            return words[2:]
        if words and words[0].endswith("celery/__main__.py"):
            return words[1:]
    return words[1:] if words and Path(words[0]).name in _SCRIPTS else []


def _parsed(command: click.Command, words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The options in *words* as click reads them, and the words after them. Unknown options are passed over."""
    parser = command.make_parser(click.Context(command, ignore_unknown_options=True))
    with suppress(click.UsageError):
        options, rest, _ = parser.parse_args([*words])
        return dict(options), rest
    return {}, []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not there, not Linux, or not for this user
        return ""


def _fields(path: Path) -> dict[str, str]:
    """The lines ``name value`` of a file."""
    return {name: value.strip() for name, _, value in (line.partition(" ") for line in _read(path).splitlines())}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdigit() else None


def _groups(root: Path, controller: str, pid: str = "self") -> list[Path]:
    """The folder of a process's control group, and those around it; of version 1 if that has *controller*."""
    mounts = root / "sys/fs/cgroup"
    paths, text = {}, _read(root / "proc" / pid / "cgroup")
    for line in text.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        paths.update(dict.fromkeys(controllers.split(","), path))
    base = mounts / controller if controller in paths else mounts
    path = paths.get(controller, paths.get("", ""))
    if not path or ".." in path.split("/"):  # above what this process may see
        return []
    own = base / path.strip("/")
    if not own.is_dir():  # a container may be told the path outside of it, while its own group is mounted here
        if text != _read(root / "proc/self/cgroup"):
            return []
        own = base
    return [folder for folder in (own, *own.parents) if folder.is_relative_to(base)]


def _first(folder: Path, *names: str) -> int | None:
    """The number in the first of these files that has one: of version 2, then of version 1."""
    numbers = [number for name in names if (number := _number(_read(folder / name))) is not None]
    return numbers[0] if numbers else None


def _memory_group(root: Path, pid: str) -> CGroup | None:
    """The control group of the process *pid*; ``None`` where its files say nothing."""
    limits = {
        folder: limit
        for folder in _groups(root, "memory", pid)
        if (limit := _first(folder, "memory.max", "memory.limit_in_bytes") or _NO_LIMIT)
    }
    if not limits:
        return None
    own, tightest = next(iter(limits)), min(limits, key=lambda folder: limits[folder])
    used = _first(tightest, "memory.current", "memory.usage_in_bytes")
    stat = _fields(tightest / "memory.stat")
    cached = _number(stat.get("total_inactive_file", stat.get("inactive_file"))) or 0
    events = _fields(own / "memory.events") | _fields(own / "memory.oom_control")
    group = CGroup(
        path=f"/{own.relative_to(root / 'sys/fs/cgroup')}",
        limit=limits[tightest] if limits[tightest] < _NO_LIMIT else None,
        used=None if used is None else max(0, used - cached),
        oom_kills=_number(events.get("oom_kill")),
    )
    return group if group != CGroup(path=group.path) else None


def _cpus(root: Path) -> int:
    """CPUs that this process may use: of its affinity, or of the lowest quota of the control groups around it."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _groups(root, "cpu"):
        quota = _read(folder / "cpu.max") or _read(folder / "cpu.cfs_quota_us") + _read(folder / "cpu.cfs_period_us")
        numbers = [_number(word) for word in quota.split()]  # "max" and "-1" are none
        if len(numbers) == 2 and numbers[0] and numbers[1]:  # noqa: PLR2004 - quota and period, in microseconds
            cpus = min(cpus, math.ceil(numbers[0] / numbers[1]))
    return cpus
