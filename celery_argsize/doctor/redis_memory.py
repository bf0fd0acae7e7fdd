"""Judges of what a Redis keeps: its memory, what it throws away when that is full, what a restart leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.checks import NotKnown, Outcome, fail, ok, warn
from celery_argsize.doctor.redis_judging import NEARLY_FULL, NO_ROOM, ago, cli, each_server, number, size, uptime

if TYPE_CHECKING:
    from celery_argsize.doctor.facts import Facts
    from celery_argsize.doctor.redis_facts import ServerFacts

__all__ = ["evicted", "eviction", "memory", "persistence"]

#: Resident memory below this part of used_memory means that the rest is swapped out (Redis' documentation of INFO);
#: with little in it, the two differ for other reasons.
SWAPPED: Final = 0.8
TELLING: Final = 256 << 20

#: Two of these, so that it forks and saves both often and after few writes; Redis' own default has three.
_SAVE: Final = '"3600 1 300 100"'


def memory(facts: Facts) -> list[Outcome]:
    """used_memory against what there may be."""
    return each_server(facts, _memory_of, "info")


def _memory_of(server: ServerFacts) -> Outcome:
    used, most = number(server, "used_memory"), number(server, "maxmemory")
    policy = str(server.info.get("maxmemory_policy", ""))
    room, of = most, "maxmemory"
    if not most:
        room, of = int(server.info.get("total_system_memory") or 0), "its machine's memory"
    if not room:
        message = "it has no maxmemory, and does not say how much memory its machine has"
        raise NotKnown(message)
    figure = f"{size(used)} of {size(room)} ({of})"
    resident = int(server.info.get("used_memory_rss") or 0)
    if used > TELLING and 0 < resident < used * SWAPPED:
        reason = "part of it is swapped out, so that everything waits for a disk"
        return warn(reason, f"{figure}, {size(resident)} resident", fix=_more(server, used))
    if used < room * NEARLY_FULL or (most and policy.startswith("allkeys-")):
        return ok("there is room" if used < room * NEARLY_FULL else "see redis.eviction", figure)
    if used < room * NO_ROOM:
        return warn("it is nearly full", figure, fix=_more(server, room))
    if most:
        reason = "it refuses writes: no task can be sent (OOM command not allowed when used memory > 'maxmemory')"
        return fail(reason, figure, fix=_more(server, room))
    return fail("the system may kill it at any time", figure, fix=_more(server, room))


def _more(server: ServerFacts, room: int) -> str:
    lines = [f"{cli(server)} --bigkeys", "see redis.queues and redis.results for what Celery keeps there"]
    if server.info.get("maxmemory"):
        lines.append(f"{cli(server)} CONFIG SET maxmemory {2 * room}  # bytes; or a larger plan")
    return "\n".join(lines)


def eviction(facts: Facts) -> list[Outcome]:
    """maxmemory-policy."""
    return each_server(facts, _eviction_of, "info")


def _eviction_of(server: ServerFacts) -> Outcome:
    policy = str(server.info.get("maxmemory_policy") or "")
    if not policy:
        message = "it does not say its maxmemory-policy"
        raise NotKnown(message)
    if policy == "noeviction":
        return ok("nothing is thrown away", policy)
    if not number(server, "maxmemory"):
        return ok("nothing is thrown away as long as there is no maxmemory", policy)
    if policy.startswith("volatile-"):
        return ok("only what expires anyway is thrown away: results, but no queue and no counter", policy)
    fix = f"{cli(server)} CONFIG SET maxmemory-policy noeviction  # and in redis.conf, or in your host's panel"
    if lost := [_AT_RISK[role] for role in ("messages", "figures") if role in server.roles]:
        return fail(f"when it is full it throws away any key: {' and '.join(lost)}", policy, fix=fix)
    return warn("when it is full it throws away results that nobody has read", policy, fix=fix)


_AT_RISK: Final = {"messages": "whole queues with all their tasks", "figures": "the figures of tasks"}


def evicted(facts: Facts) -> list[Outcome]:
    """evicted_keys."""
    return each_server(facts, _evicted_of, "info")


def _evicted_of(server: ServerFacts) -> Outcome:
    count = number(server, "evicted_keys")
    if not count:
        return ok("nothing was thrown away", uptime(server))
    volatile = str(server.info.get("maxmemory_policy", "")).startswith("volatile-")
    reason = "it was full, and threw away " + ("results before their time" if volatile else "keys, maybe whole queues")
    fix = (
        f"see redis.memory and redis.eviction\n{cli(server)} CONFIG RESETSTAT  # once it is mended: counts from 0 again"
    )
    return warn(reason, f"{count:,} keys {uptime(server)}", fix=fix)


def persistence(facts: Facts) -> list[Outcome]:
    """Whether it saves, and whether that works."""
    return each_server(facts, _persistence_of, "info")


def _persistence_of(server: ServerFacts) -> Outcome:
    aof = bool(number(server, "aof_enabled"))
    refused = "it cannot write to its disk, and refuses all writes until it can (MISCONF)"
    if aof and not _well(server, "aof_last_write_status"):
        return fail(refused, "aof_last_write_status: err", fix=_disk(server))
    if not _well(server, "rdb_last_bgsave_status"):
        figure = "rdb_last_bgsave_status: err"
        if _stops(server):
            return fail(refused, figure, fix=_disk(server))
        if server.config.get("save"):
            return warn("it takes writes, but its last save failed: a restart loses them", figure, fix=_disk(server))
    if aof and not _well(server, "aof_last_bgrewrite_status"):
        return warn(
            "its append-only file only grows: rewriting it failed", "aof_last_bgrewrite_status err", fix=_disk(server)
        )
    if aof:
        return ok("a restart loses a second at most", "append-only file")
    server.need("config")
    return _without_aof(server)


def _well(server: ServerFacts, status: str) -> bool:
    return bool(server.info.get(status, "ok") == "ok")


def _stops(server: ServerFacts) -> bool:
    """Whether it refuses writes after a save that failed: only with save points, and unless told not to.

    Where it does not show its configuration, the PINGs tell, which it refuses as well.
    """
    if "config" in server.missed:
        return not server.pings
    return bool(server.config.get("save")) and server.config.get("stop-writes-on-bgsave-error", "yes") == "yes"


def _without_aof(server: ServerFacts) -> Outcome:
    if server.config.get("save"):
        return ok("a restart loses what came since the last save", _since(server))
    if "messages" not in server.roles:
        return ok(
            "nothing is saved: a restart loses the " + " and ".join(sorted(server.roles)),
            "no save, no append-only file",
        )
    fix = (
        f"{cli(server)} CONFIG SET appendonly yes  # and in redis.conf, or in your host's panel\n"
        f"{cli(server)} CONFIG SET save {_SAVE}  # or this: less to write, a few minutes to lose\n"
        "none of it is needed where you develop"
    )
    return warn("nothing is saved: a restart loses all tasks that wait", "no save, no append-only file", fix=fix)


def _since(server: ServerFacts) -> str:
    changes = int(server.info.get("rdb_changes_since_last_save") or 0)
    saved = int(server.info.get("rdb_last_save_time") or 0)
    now = int(server.info.get("server_time_usec") or 0) / 1_000_000
    when = f", {ago(max(0.0, now - saved))} ago" if now and saved else ""
    return f"save {server.config['save']}; {changes:,} changes since the last one{when}"


def _disk(server: ServerFacts) -> str:
    return (
        f"{cli(server)} CONFIG GET dir  # is that disk full, and may redis-server write there? its log says more\n"
        f"{cli(server)} BGSAVE  # once it is mended: a save that works ends it"
    )
