"""What only this machine tells of the workers and Beats on it: options that they do not tell, and connections.

By psutil, which is an extra: without it there is nothing. Of command lines only what is named here is taken.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_argsize.doctor.host_facts import process_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LocalProcess", "local_processes"]

_POOL: Final = re.compile(r"(?:-P|--pool)(?:\s+|=)?(\w+)")
_MAX_MEMORY: Final = re.compile(r"--max-memory-per-child(?:\s+|=)(\d+)")


class LocalProcess(NamedTuple):
    """A worker on this machine (its main process; its forks look the same), or a Beat."""

    pool: str
    """What ``-P`` said; empty where nothing did."""
    recycles: bool
    """Whether its command line has children replaced that use much memory (``--max-memory-per-child``)."""
    stopped: bool
    """Whether it was stopped, as by SIGSTOP."""
    ports: frozenset[int] | None
    """Ports of others that it is connected to; ``None`` where that may not be seen."""
    max_memory: int = 0
    """KiB that ``--max-memory-per-child`` said; 0 where nothing did."""
    folder: str = ""
    """Where it was started; empty where that may not be seen."""
    ends: frozenset[str] = frozenset()
    """Its ends of its connections to others, as a Redis writes them in CLIENT LIST."""

    def elsewhere(self, port: int) -> bool:
        """Whether it is not connected to *port*: another installation of the app has a broker of its own."""
        return self.ports is not None and port not in self.ports


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
