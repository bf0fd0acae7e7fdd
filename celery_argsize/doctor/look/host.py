"""Looks at this machine: memory, control groups (version 2) and processes of Celery.

Memory and processes come from psutil, an extra; the rest from files of Linux. Of a
command line, which may hold a password, only the fields of ``CeleryProcess`` are kept.
"""

from __future__ import annotations

import math
import os
import re
import socket
from contextlib import suppress
from dataclasses import replace
from itertools import dropwhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from celery.bin.celery import celery as celery_command
from celery.bin.worker import worker as worker_command

from celery_argsize.doctor.facts import CeleryProcess, CGroup, HostFacts, Scope

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def look_at_host(_: Scope, root: Path = Path("/")) -> HostFacts:
    """Look at this machine. *root* is the folder with ``proc`` and ``sys``."""
    psutil, own = _psutil(), _memory_group(root, "self")
    processes = tuple(_celery_processes(psutil)) if psutil else ()
    groups = {own.path: own} if own else {}
    for process in processes:
        if group := _memory_group(root, str(process.pid)):
            group = groups.get(group.path, group)
            groups[group.path] = replace(group, workers=group.workers + 1)
    memory = psutil.virtual_memory() if psutil else None
    return HostFacts(
        hostname=socket.gethostname(),
        cpus=_cpus(root),
        memory_total=memory and memory.total,
        memory_available=memory and memory.available,
        oom_kills_since_boot=_number(_fields(root / "proc/vmstat").get("oom_kill")),
        cgroup=groups.pop(own.path) if own else None,
        worker_cgroups=tuple(groups[path] for path in sorted(groups)),
        processes=processes,
        psutil_missing=psutil is None,
    )


def _psutil() -> Any:
    try:
        import psutil  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    return psutil


def _celery_processes(psutil: Any) -> Iterator[CeleryProcess]:
    """Workers, their children, and Beats."""
    processes = [*psutil.process_iter(["ppid", "cmdline"])]
    parsed = [process_of(process.info["cmdline"] or [], process.pid, process.info["ppid"]) for process in processes]
    celery = {process.pid: process for process in parsed if process}
    # a child has the command line of its worker
    mains = {pid: main for pid, main in celery.items() if main.ppid not in celery or main.kind == "beat"}
    for process in processes:
        pid, ppid = process.pid, process.info["ppid"]
        with suppress(psutil.Error, OSError):  # it ended, or is another user's
            usage = {"rss": process.memory_info().rss, "created": process.create_time()}
            if pid in mains:
                yield replace(mains[pid], **usage, **_details(psutil, process))
            elif ppid in mains and mains[ppid].kind == "worker":
                yield CeleryProcess(pid=pid, ppid=ppid, kind="child", **usage)


def _details(psutil: Any, process: Any) -> dict[str, Any]:
    """Fields that only workers and Beats have."""
    info, remote = process.as_dict(["status", "cwd"]), _connections(psutil, process)
    return {
        "stopped": info["status"] == psutil.STATUS_STOPPED,
        "folder": info["cwd"] or "",
        "ports": None if remote is None else frozenset(each.raddr.port for each in remote),
        "ends": frozenset(_address(*each.laddr) for each in remote or ()),
    }


def _connections(psutil: Any, process: Any) -> list[Any] | None:
    """A process's connections; ``None``: this user may not see them."""
    method = "net_connections" if psutil.version_info >= (6,) else "connections"
    sockets = process.as_dict([method])[method]
    return sockets and [socket for socket in sockets if socket.raddr]


def own_connections() -> set[tuple[str, str]]:
    """Both addresses of each connection of this process, the local one first."""
    psutil = _psutil()
    connections = _connections(psutil, psutil.Process()) if psutil else None
    return {(_address(*each.laddr), _address(*each.raddr)) for each in connections or ()}


def _address(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


#: Command lines of workers and Beats where setproctitle is installed:
#: "[celeryd: celery@h:MainProcess] -active- (-A proj worker)", "[celery beat] -A proj beat".
_TITLE: Final = re.compile(r"\[celery(?:d:.*:MainProcess| beat)\] (?:-active- \()?([^()]*)")
_PYTHON: Final = re.compile(r"(python|pypy)[\d.]*")


def process_of(command: Sequence[str], pid: int = 0, ppid: int = 0) -> CeleryProcess | None:
    """The worker or Beat with this command line; ``None`` for other programs."""
    title = _TITLE.match(" ".join(command))
    options, words = _parsed(celery_command, title[1].split() if title else _arguments(command))
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
        max_memory=_number(options.get("max_memory_per_child")) or 0,
    )


def _arguments(command: Sequence[str]) -> list[str]:
    """The words after ``celery`` or ``python -m celery``; none for other programs."""
    words = [*command]
    if words and _PYTHON.fullmatch(Path(words[0]).name):  # skip Python's own options
        words = [*dropwhile(lambda word: word[:1] == "-" and word not in {"-m", "-c"}, words[1:])]
    if words[:2] == ["-m", "celery"]:
        return words[2:]
    return words[1:] if words and f"/{words[0]}".endswith(("/celery", "/celery/__main__.py")) else []


def _parsed(command: click.Command, words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The options at the start of *words*, and the rest of *words*."""
    parser = command.make_parser(click.Context(command, ignore_unknown_options=True))
    with suppress(click.UsageError):
        options, rest, _ = parser.parse_args([*words])
        return dict(options), rest
    return {}, []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # no such file, or this user may not read it
        return ""


def _fields(path: Path) -> dict[str, str]:
    """Name → value of a file with lines ``name value``."""
    lines = (line.partition(" ") for line in _read(path).splitlines())
    return {name: value.strip() for name, _, value in lines}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdigit() else None


def _groups(root: Path, pid: str) -> list[Path]:
    """The folders of a process's control group and of its parents, the innermost first."""
    mount, lines = root / "sys/fs/cgroup", _read(root / "proc" / pid / "cgroup").splitlines()
    path = next((line[3:] for line in lines if line.startswith("0::")), "")
    if not path or ".." in path.split("/"):  # "..": this container cannot see the group
        return []
    own = mount / path.strip("/")
    return [folder for folder in (own, *own.parents) if folder.is_relative_to(mount)]


def _memory_group(root: Path, pid: str) -> CGroup | None:
    """The control group of a process; ``None`` without files about memory."""
    texts = {folder: _read(folder / "memory.max") for folder in _groups(root, pid)}
    limits = {folder: _number(text) or math.inf for folder, text in texts.items() if text}
    if not limits:
        return None
    own, tightest = next(iter(limits)), min(limits, key=lambda folder: limits[folder])
    used = _number(_read(tightest / "memory.current"))
    cached = _number(_fields(tightest / "memory.stat").get("inactive_file")) or 0
    return CGroup(
        path=f"/{own.relative_to(root / 'sys/fs/cgroup')}",
        limit=_number(texts[tightest]),
        used=None if used is None else max(0, used - cached),
        oom_kills=_number(_fields(own / "memory.events").get("oom_kill")),
    )


def _cpus(root: Path) -> int:
    """CPUs that this process may use: its affinity, and its control groups' quotas."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _groups(root, "self"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit():  # "max": no quota
            cpus = min(cpus, math.ceil(int(quota) / int(period)))
    return cpus
