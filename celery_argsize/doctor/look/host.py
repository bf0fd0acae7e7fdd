"""What the machine says on which the command runs: memory, swap, CPUs, control group, and the Celery processes on it.

Memory and processes come from psutil, which is an extra; the control group and what the kernel killed, from files of
Linux, so that each is simply not known elsewhere. Nothing is judged here. Of command lines only the kind of the process
and the name of its app are taken.
"""

from __future__ import annotations

import math
import os
import re
import socket
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from celery.bin.celery import celery as celery_command
from celery.bin.worker import worker as worker_command

from celery_argsize.doctor.facts import CeleryProcess, CGroup, HostFacts, Kind, LocalProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from celery_argsize.doctor.facts import Scope

#: Seconds between two looks at what is swapped, at most.
_SWAP_SECONDS: Final = 1.0
#: Control groups without a limit say "max", or with version 1 about 2**63.
_NO_LIMIT: Final = 1 << 60


def look_at_host(where: Scope, root: Path = Path("/")) -> HostFacts:
    """Look at this machine. *root*: where ``proc`` and ``sys`` are."""
    quota = _cpu_quota(root)
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    facts = HostFacts(
        hostname=socket.gethostname(),
        cpus=min(affinity, math.ceil(quota)) if quota else affinity,
        machine_cpus=os.cpu_count() or 1,
        cpu_quota=quota,
        load=_load(),
        oom_kills_since_boot=_number(_fields(root / "proc/vmstat").get("oom_kill")),
        container=_container(root),
        cgroup=_memory_group(root, "self"),
    )
    try:
        import psutil  # noqa: PLC0415 - an extra: everything else works without it
    except ImportError:
        return replace(facts, psutil_missing=True)
    processes = tuple(_celery_processes(psutil))
    found = [group for one in processes if (group := _memory_group(root, str(one.pid)))]
    workers = Counter(group.path for group in found)
    groups = {group.path: replace(group, workers=workers[group.path]) for group in found}
    own = groups.pop(facts.cgroup.path, facts.cgroup) if facts.cgroup else None
    return replace(
        facts,
        processes=processes,
        cgroup=own,
        worker_cgroups=tuple(group for _, group in sorted(groups.items())),
        **_memory(psutil, min(_SWAP_SECONDS, where.seconds / 4)),
    )


def _load() -> tuple[float, float, float] | None:
    try:
        return os.getloadavg()
    except (AttributeError, OSError):  # Windows; or it could not be had
        return None


def _memory(psutil: Any, seconds: float) -> dict[str, Any]:
    memory, swap, start = psutil.virtual_memory(), psutil.swap_memory(), time.monotonic()
    found = {
        "memory_total": memory.total,
        "memory_available": memory.available,
        "swap_total": swap.total,
        "swap_used": swap.used,
    }
    if not swap.total:
        return found
    time.sleep(seconds)
    after, passed = psutil.swap_memory(), time.monotonic() - start
    return {
        **found,
        "swap_in_per_second": (after.sin - swap.sin) / passed,
        "swap_out_per_second": (after.sout - swap.sout) / passed,
    }


# --- the processes of Celery


def _celery_processes(psutil: Any) -> Iterator[CeleryProcess]:
    """Workers, what they started, and Beats. A fork has the command line of its parent: only its parent tells it."""
    seen: dict[int, tuple[Any, CeleryProcess]] = {}
    for process in psutil.process_iter(["ppid", "cmdline"]):
        found = process_of(process.info["cmdline"] or [], process.pid, process.info["ppid"] or 0)
        if found is not None:
            seen[process.pid] = process, found
    workers = {pid for pid, (_, one) in seen.items() if one.kind == "worker" and one.ppid not in seen}
    for process, one in seen.values():
        kind: Kind = "child" if one.ppid in workers else one.kind
        if kind == "beat" or one.pid in workers or one.ppid in workers:  # else a task started it
            with suppress(psutil.Error):  # it may have ended by now
                rss, created = process.memory_info().rss, process.create_time()
                beat = one.beat and kind != "child"
                yield replace(one, kind=kind, beat=beat, rss=rss, created=created)


#: What setproctitle leaves of a command line: Celery's own titles.
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
    if title is None:
        words = _arguments(command)
    elif title["process"]:  # "[celeryd: celery@host:MainProcess] -active- (-A proj worker -l info)"
        words = title["rest"].partition("(")[2].rpartition(")")[0].split()
        words = words if "worker" in words else ["worker"]
    else:  # "[celery beat] -A proj beat -l info"
        words = title["rest"].split()
        words = words if "beat" in words else ["beat"]
    said, rest = _parsed(celery_command, words)
    kind, app = rest[0] if rest else "", str(said.get("app") or "")
    if kind == "worker":
        beat = bool(_parsed(worker_command, rest[1:])[0].get("beat"))
        return CeleryProcess(pid=pid, ppid=ppid, kind="worker", beat=beat, app=app)
    return CeleryProcess(pid=pid, ppid=ppid, kind="beat", beat=True, app=app) if kind == "beat" else None


def _arguments(command: Sequence[str]) -> list[str]:
    """What was said to ``celery``; nothing if it is not Celery that runs."""
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
    """The options in *words*, as click itself reads them, and what comes after. Options that it does not know pass."""
    parser = command.make_parser(click.Context(command, ignore_unknown_options=True))
    with suppress(click.UsageError):
        options, rest, _ = parser.parse_args([*words])
        return dict(options), rest
    return {}, []


# --- what Linux says in files


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not there, not Linux, or not for this user
        return ""


def _fields(path: Path) -> dict[str, str]:
    """The ``name value`` lines of a file."""
    return {name: value.strip() for name, _, value in (line.partition(" ") for line in _read(path).splitlines())}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdigit() else None


def _groups(root: Path, controller: str, pid: str = "self") -> list[Path]:
    """The folder of the control group of a process, and those around it; of version 1 if that has *controller*."""
    mounts = root / "sys/fs/cgroup"
    paths, text = {}, _read(root / "proc" / pid / "cgroup")
    for line in text.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        paths.update(dict.fromkeys(controllers.split(","), path))
    base = mounts / controller if controller in paths else mounts
    path = paths.get(controller, paths.get("", ""))
    if not path or ".." in path.split("/"):  # out of what this process may see
        return []
    own = base / path.strip("/")
    if not own.is_dir():  # in a container, the path may be that of the machine outside, and the container's own is here
        if text != _read(root / "proc/self/cgroup"):
            return []
        own = base
    return [one for one in (own, *own.parents) if one.is_relative_to(base)]


def _memory_group(root: Path, pid: str) -> CGroup | None:
    folders = _groups(root, "memory", pid)
    if not folders:
        return None
    own, limits = folders[0], {}
    for folder in folders:
        limit = _number(_read(folder / "memory.max")) or _number(_read(folder / "memory.limit_in_bytes"))
        if limit is not None and limit < _NO_LIMIT:
            limits[folder] = limit
    tightest = min(limits, key=lambda folder: limits[folder], default=own)
    usage = _number(_read(tightest / "memory.current"))
    usage = _number(_read(tightest / "memory.usage_in_bytes")) if usage is None else usage
    stat = _fields(tightest / "memory.stat")
    files = _number(stat.get("total_inactive_file", stat.get("inactive_file"))) or 0
    kills = _fields(own / "memory.events").get("oom_kill", _fields(own / "memory.oom_control").get("oom_kill"))
    group = CGroup(
        path=f"/{own.relative_to(root / 'sys/fs/cgroup')}",
        limit=limits.get(tightest),
        used=None if usage is None else max(0, usage - files),
        oom_kills=_number(kills),
    )
    return group if (group.limit, group.used, group.oom_kills) != (None, None, None) else None


def _cpu_quota(root: Path) -> float | None:
    """CPUs that the control group, or one around it, allows: the least."""
    quotas = []
    for folder in _groups(root, "cpu"):
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
        quota, period = (
            (quota, period)
            if period
            else (_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip())
        )
        if quota.isdigit() and period.isdigit() and int(quota) and int(period):
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _container(root: Path) -> str:
    """The kind of container that this process is in; empty: none that shows."""
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / ".dockerenv").exists():
        return "docker"
    names = ("kubepods", "docker", "libpod", "containerd", "lxc", "ecs")
    groups = _read(root / "proc/self/cgroup")
    return next((name for name in names if re.search(rf"/{name}[-/.]", groups)), "")


_POOL: Final = re.compile(r"(?:-P|--pool)(?:\s+|=)?(\w+)")
_MAX_MEMORY: Final = re.compile(r"--max-memory-per-child(?:\s+|=)(\d+)")


def local_processes() -> Mapping[int, LocalProcess]:
    """Pid → worker or Beat, for every one that this user may see."""
    try:
        import psutil  # noqa: PLC0415 - an extra
    except ImportError:
        return {}
    found = {}
    for process in psutil.process_iter():
        # not process_iter's own info: that is shared with the look at the host, which runs at the same time
        info = _info(psutil, process)
        words = info.get("cmdline") or []
        one = process_of(words)
        if one is None or one.kind == "child":
            continue
        line, connections = " ".join(words), _connections(psutil, process)
        pool, memory = _POOL.search(line), _MAX_MEMORY.search(line)
        found[process.pid] = LocalProcess(
            pool=pool[1] if pool else "",
            recycles="--max-memory-per-child" in line,
            stopped=info.get("status") == psutil.STATUS_STOPPED,
            ports=None if connections is None else frozenset(one.raddr.port for one in connections),
            max_memory=int(memory[1]) if memory else 0,
            folder=_folder(psutil, process),
            ends=frozenset(_listed(one.laddr) for one in connections or ()),
        )
    return found


def _info(psutil: Any, process: Any) -> dict[str, Any]:
    with suppress(psutil.Error, OSError):
        return dict(process.as_dict(["cmdline", "status"]))
    return {}


def _connections(psutil: Any, process: Any) -> list[Any] | None:
    ask = getattr(process, "net_connections", None) or process.connections  # before psutil 6
    with suppress(psutil.Error, OSError):
        return [one for one in ask("tcp") if one.raddr]
    return None


def _folder(psutil: Any, process: Any) -> str:
    with suppress(psutil.Error, OSError):
        return str(process.cwd())
    return ""


def _listed(end: Any) -> str:
    return f"[{end.ip}]:{end.port}" if ":" in end.ip else f"{end.ip}:{end.port}"
