"""What this machine says: its memory, its control groups, and the Celery processes on it.

Memory and processes come from psutil, which is an extra; control groups, and what the kernel killed, from files that
only Linux has. Of a command line, only what the fields of ``CeleryProcess`` name is kept.
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
        import psutil  # noqa: PLC0415 - an extra: everything else works without it
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


# --- the processes of Celery


def _celery_processes(psutil: Any) -> Iterator[CeleryProcess]:
    """Workers with the processes that they started, and Beats: the one reading of the process table."""
    seen: dict[int, tuple[Any, CeleryProcess]] = {}
    for process in psutil.process_iter(["ppid", "cmdline"]):
        celery = process_of(process.info["cmdline"] or [], process.pid, process.info["ppid"] or 0)
        if celery is not None:
            seen[process.pid] = process, celery
    mains = {pid for pid, (_, celery) in seen.items() if celery.kind == "worker" and celery.ppid not in seen}
    for pid, (process, celery) in seen.items():
        # a fork has the command line of its parent, so only its parent tells what it is
        if celery.ppid in mains:
            celery = replace(celery, kind="child", beat=False)  # noqa: PLW2901 - what it is
        elif pid not in mains and celery.kind != "beat":
            continue  # a task started it
        with suppress(psutil.Error, OSError):  # it ended meanwhile, or is another user's
            memory, created = process.memory_info(), process.create_time()
            details = {} if celery.kind == "child" else _details(psutil, process)
            yield replace(celery, rss=memory.rss, created=created, **details)


def _details(psutil: Any, process: Any) -> dict[str, Any]:
    """What is only looked at for workers and Beats; what may not be seen is left out."""
    network = "net_connections" if hasattr(process, "net_connections") else "connections"  # before psutil 6
    info = process.as_dict(["status", "cwd", network])
    details = {"stopped": info["status"] == psutil.STATUS_STOPPED, "folder": info["cwd"] or ""}
    if info[network] is not None:
        remote = [connection for connection in info[network] if connection.raddr]
        details["ports"] = frozenset(connection.raddr.port for connection in remote)
        details["ends"] = frozenset(_end(*connection.laddr) for connection in remote)
    return details


def _end(ip: str, port: int) -> str:
    """An end of a connection as CLIENT LIST of Redis writes it."""
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
    return CeleryProcess(
        pid=pid,
        ppid=ppid,
        kind="worker",
        beat=bool(options.get("beat")),
        app=app,
        pool=str(options.get("pool") or ""),
        max_memory=_number(str(options.get("max_memory_per_child"))) or 0,
    )


def _titled(title: re.Match[str]) -> list[str]:
    """The words that *title* shows; a title without arguments still says whether it is a worker or a Beat."""
    kind, rest = ("worker" if title["process"] else "beat"), title["rest"]
    words = (rest.partition("(")[2].rpartition(")")[0] if title["process"] else rest).split()
    return words if kind in words else [kind]


def _arguments(command: Sequence[str]) -> list[str]:
    """The words after ``celery``, ``python -m celery`` and the like; empty if another program runs."""
    words = [*command]
    if words and _PYTHON.fullmatch(_base(words[0])):
        del words[0]
        while words and words[0].startswith("-") and words[0] not in {"-m", "-c"}:
            del words[: 2 if words[0] in _PYTHON_VALUES else 1]
        if words[:2] == ["-m", "celery"]:
            return words[2:]
        if words and words[0].replace("\\", "/").endswith("celery/__main__.py"):
            return words[1:]
    return words[1:] if words and _base(words[0]) in _SCRIPTS else []


def _base(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _parsed(command: click.Command, words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The options in *words* as click reads them, and the words after them. Unknown options are passed over."""
    parser = command.make_parser(click.Context(command, ignore_unknown_options=True))
    with suppress(click.UsageError):
        options, rest, _ = parser.parse_args([*words])
        return dict(options), rest
    return {}, []


# --- files of Linux


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
    """The number in the first of the files *names* that has one: those of version 2, then of version 1."""
    return next((number for name in names if (number := _number(_read(folder / name))) is not None), None)


def _memory_group(root: Path, pid: str) -> CGroup | None:
    """The control group of the process *pid*; ``None`` where its files say nothing."""
    folders = _groups(root, "memory", pid)
    if not folders:
        return None
    own, limits = folders[0], {}
    for folder in folders:
        limit = _first(folder, "memory.max", "memory.limit_in_bytes")
        if limit and limit < _NO_LIMIT:
            limits[folder] = limit
    tightest = min(limits, key=lambda folder: limits[folder], default=own)
    used = _first(tightest, "memory.current", "memory.usage_in_bytes")
    stat = _fields(tightest / "memory.stat")
    cached = _number(stat.get("total_inactive_file", stat.get("inactive_file"))) or 0
    events = _fields(own / "memory.events") | _fields(own / "memory.oom_control")
    group = CGroup(
        path=f"/{own.relative_to(root / 'sys/fs/cgroup')}",
        limit=limits.get(tightest),
        used=None if used is None else max(0, used - cached),
        oom_kills=_number(events.get("oom_kill")),
    )
    return group if (group.limit, group.used, group.oom_kills) != (None, None, None) else None


def _cpus(root: Path) -> int:
    """CPUs that this process may use: those of its affinity, or the quota of a control group around it if lower."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _groups(root, "cpu"):
        quota = _read(folder / "cpu.max") or _read(folder / "cpu.cfs_quota_us") + _read(folder / "cpu.cfs_period_us")
        numbers = [_number(word) for word in quota.split()]  # "max" and "-1" are none
        if len(numbers) == 2 and numbers[0] and numbers[1]:  # noqa: PLR2004 - quota and period, in microseconds
            cpus = min(cpus, math.ceil(numbers[0] / numbers[1]))
    return cpus
