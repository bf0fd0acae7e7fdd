"""Who holds the connections of a Redis: what CLIENT LIST says, and which processes of this machine they are."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Holders", "holders_in", "open_files"]

#: Both ends of a connection, as CLIENT LIST writes them, the client's first.
_Ends = tuple[str, str]


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


def open_files() -> frozenset[int] | None:
    """What this process has open, as numbers; ``None`` where the system does not tell."""
    try:
        return frozenset(int(name) for name in os.listdir("/dev/fd"))  # noqa: PTH208 - names are all it needs
    except (OSError, ValueError):
        return None


def holders_in(client: Any, ours: str, before: frozenset[int] | None) -> tuple[Holders, ...]:
    """Who is connected, by name, host and what they do, the most first.

    Without those that have the name *ours*, and without those that this process opened since it had only the files
    *before*: by these, other looks ask workers. Where that cannot be told, without any of this process.
    """
    opened = _opened_since(before)
    listed = client.client_list()
    if not any(one.get("name") == ours for one in listed):  # it could not be named
        asking = (one for one in reversed(listed) if one.get("cmd") in {"client", "client|list"})
        with suppress(StopIteration, ValueError):
            listed.remove(next(asking))
    processes = _processes(here=any(one.get("addr", "").startswith(("127.", "[::1]")) for one in listed))
    opened |= _opened_since(before)
    count: Counter[tuple[str, str, str]] = Counter()
    of: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for one in listed:
        address = one.get("addr", "")
        ends = (address, one.get("laddr", ""))
        pid = processes.get(ends)
        if one.get("name") == ours or ends in opened:
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


def _processes(*, here: bool) -> dict[_Ends, int]:
    """The process of this machine that has a connection, where it may be seen.

    *here*: whether there may be any but this one; those of all take their time.
    """
    found: dict[_Ends, int] = {}
    with suppress(Exception):  # not allowed (macOS), or no psutil: who it is stays open
        import psutil  # noqa: PLC0415 - an extra

        if here:
            found |= {_ends(one): one.pid for one in psutil.net_connections("tcp") if one.pid and one.raddr}
    return found | {_ends(one): os.getpid() for one in _own()}


def _opened_since(before: frozenset[int] | None) -> set[_Ends]:
    """The connections that this process opened since it had only the files *before*."""
    return {_ends(one) for one in _own() if before is None or one.fd not in before}


def _ends(one: Any) -> _Ends:
    return _written(one.laddr), _written(one.raddr)


def _written(end: Any) -> str:
    """One end of a connection, as CLIENT LIST writes it."""
    return f"[{end.ip}]:{end.port}" if ":" in end.ip else f"{end.ip}:{end.port}"


def _own() -> list[Any]:
    """Those of this process, which may always be seen; before version 6, psutil had another name for that."""
    try:
        import psutil  # noqa: PLC0415 - an extra

        process = psutil.Process()
        listed = getattr(process, "net_connections", None) or process.connections
        return [one for one in listed("tcp") if one.raddr]
    except Exception:  # noqa: BLE001 - as above
        return []
