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
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        one = process_of(words)
        if one is None or one.kind == "child":
            continue
        line = " ".join(words)
        pool = _POOL.search(line)
        found[process.pid] = LocalProcess(
            pool=pool[1] if pool else "",
            recycles="--max-memory-per-child" in line,
            stopped=process.info["status"] == psutil.STATUS_STOPPED,
            ports=_ports(psutil, process),
        )
    return found


def _ports(psutil: Any, process: Any) -> frozenset[int] | None:
    ask = getattr(process, "net_connections", None) or process.connections  # before psutil 6
    with suppress(psutil.Error, OSError):
        return frozenset(one.raddr.port for one in ask("tcp") if one.raddr)
    return None
