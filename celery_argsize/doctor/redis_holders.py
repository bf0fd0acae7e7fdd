"""Who holds the connections of a Redis: what CLIENT LIST says, and which processes of this machine they are."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Holders", "holders_in"]


class Holders(NamedTuple):
    """Connections that look alike."""

    clients: int
    name: str
    """What they call themselves; mostly nothing."""
    address: str
    """The host they come from."""
    does: str
    pids: tuple[int, ...]
    """The processes, where these are on this machine and may be seen."""


def holders_in(client: Any, ours: str) -> tuple[Holders, ...]:
    """Who is connected, by name, host and what they do, the most first.

    Without this process's own: those that have the name *ours*, and those by which other looks ask workers.
    """
    listed = client.client_list()
    processes = _processes(here=any(one.get("addr", "").startswith(("127.", "[::1]")) for one in listed))
    count: Counter[tuple[str, str, str]] = Counter()
    of: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for one in listed:
        address = one.get("addr", "")
        pid = processes.get((address, one.get("laddr", "")))
        if one.get("name") == ours or pid == os.getpid():
            continue
        key = (one.get("name", ""), address.rpartition(":")[0], _does(one))
        count[key] += 1
        of[key] |= {pid} if pid else set()
    return tuple(Holders(number, *key, tuple(sorted(of[key]))) for key, number in count.most_common())


def _does(one: Mapping[str, str]) -> str:
    """What the client of a line of CLIENT LIST does, as far as that tells."""
    command = one.get("cmd", "").lower()
    if int(one.get("sub", 0)) + int(one.get("psub", 0)) + int(one.get("ssub", 0)):
        return "listens for results or remote control"
    if command == "brpop":
        return "waits for messages (a worker)"
    return f"idle, last command {command}" if command and command != "null" else "has sent nothing yet"


def _processes(*, here: bool) -> dict[tuple[str, str], int]:
    """Both ends of a connection, the client's first → the process of this machine that has it, where it may be seen.

    *here*: whether there may be any but this one; those of all take their time.
    """
    try:
        import psutil  # noqa: PLC0415 - an extra
    except ImportError:
        return {}
    found: dict[tuple[str, str], int] = {}
    for look in (_all, _own) if here else (_own,):
        with suppress(Exception):  # not allowed (macOS): who it is stays open
            found |= {(_written(one.laddr), _written(one.raddr)): pid for pid, one in look(psutil)}
    return found


def _written(end: Any) -> str:
    """One end of a connection, as CLIENT LIST writes it."""
    return f"[{end.ip}]:{end.port}" if ":" in end.ip else f"{end.ip}:{end.port}"


def _all(psutil: Any) -> list[tuple[int, Any]]:
    return [(one.pid, one) for one in psutil.net_connections("tcp") if one.pid and one.raddr]


def _own(psutil: Any) -> list[tuple[int, Any]]:
    """Those of this process, which may always be seen; before version 6, psutil had another name for that."""
    process = psutil.Process()
    listed = getattr(process, "net_connections", None) or process.connections
    return [(process.pid, one) for one in listed("tcp") if one.raddr]
