"""The checks of the Redis servers. Those of their clients are judged in ``redis_clients``."""

from __future__ import annotations

import os
import shlex
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Final

from celery_argsize.api.location import locate
from celery_argsize.doctor.app import setting
from celery_argsize.doctor.checks import Check, Outcome, fail, ok, unknown, warn
from celery_argsize.doctor.errors import checked_lines, fix_for, url_line
from celery_argsize.doctor.judge.redis_clients import (
    NEARLY_FULL,
    NO_ROOM,
    clients,
    each_server,
    forecast,
    number,
)
from celery_argsize.doctor.redis_facts import REPLICA, RESULTS, redis_cli
from celery_argsize.errors import ConfigError
from celery_argsize.words import counted, duration, printable, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.doctor.facts import Facts
    from celery_argsize.doctor.redis_facts import Place, Role, ServerFacts

#: Seconds of a median PING, as a task takes several round trips; and of the slowest one.
SLOW: Final = 0.1
STALLED: Final = 1.0
#: Messages in one queue: a quarter of an hour for a worker that does ten a second.
LONG: Final = 10_000
#: Part of maxmemory that one queue may take.
HEAVY: Final = 0.10
#: Seconds that a message may be overdue: workers look for these every 100 s, in turn.
GRACE: Final = 600.0
#: Results without expiry in the sample: fewer were kept on purpose.
LASTING: Final = 100
#: Seconds that results live, by a field report.
EXPIRES: Final = 3600

PARTLY: Final = "the Redis has too many keys to look for all queues of others"


def _reachable(facts: Facts) -> list[Outcome]:
    servers, outcomes = facts.redis.get(), []
    brokers = [server for server in servers if "messages" in server.roles]
    for server in servers:
        info, place = server.info, server.places[0]
        replica = info.get("role") == "slave" and info.get("slave_read_only")
        why = server.error or (REPLICA if replica else "")
        fix = fix_for(facts.where.app, place.url, why, place.role)
        outcome = ok("it answers", f"Redis {info.get('redis_version', '')}")
        if why:
            outcome = fail(why, fix=fix)
        if server.error and server in brokers and not all(broker.error for broker in brokers):
            outcome = warn(f"{why}; another broker of the list takes its place", fix=fix)
        outcomes.append(outcome._replace(subject=server.subject))
    return outcomes


def _tls(facts: Facts) -> list[Outcome]:
    try:
        required = locate(facts.where.app, **facts.where.given).settings.require_redis_ssl
    except ConfigError:
        text = os.environ.get("REQUIRE_REDIS_SSL", "")
        required = text.strip().lower() in {"1", "true", "yes", "on"}
    outcomes: list[Outcome] = []
    for server in facts.redis.get():
        roles: dict[Outcome, list[Role]] = defaultdict(list)
        for place in server.places:
            if place.certificates or place.refusal:
                roles[_encrypted(facts, place)].append(place.role)
            elif not place.error:
                roles[_plain(facts, server, place, required=required)].append(place.role)
        for outcome, names in roles.items():
            subject = f"{server.places[0].url} for {', '.join(names)}"
            outcomes.append(outcome._replace(subject=subject))
    return outcomes


def _encrypted(facts: Facts, place: Place) -> Outcome:
    checked = checked_lines(facts.where.app, place.role)
    if place.refusal:
        return fail(place.refusal, fix=checked)
    if place.certificates != "none":
        return ok("the certificate is checked", "TLS")
    reason = "nobody checks its certificate: whoever is between reads all, and the password"
    if place.role == "messages" and not facts.conf.get("broker_use_ssl"):
        reason += " (kombu checks nothing for rediss:// unless told to)"
    return warn(reason, "TLS, certificate not checked", fix=checked)


def _plain(facts: Facts, server: ServerFacts, place: Place, *, required: bool) -> Outcome:
    fix = url_line(facts.where.app, place.role, "rediss://…")
    if place.url.startswith(("unix:", "socket:", "redis+socket:")):
        return ok("nothing leaves this machine", "a socket file")
    if required:
        return fail("all travels in plain text, and require_redis_ssl is set", "no TLS", fix=fix)
    if server.public:
        reason = "all, and the password, travels through the Internet in plain text"
        return warn(reason, "no TLS, a public address", fix=fix)
    if server.public is None:
        return unknown("its address could not be found out, nor whether TLS is needed")
    return ok("the address is a private one", "no TLS")


def _latency(_: Facts, server: ServerFacts) -> Iterator[Outcome]:
    server.need("pings")
    middle, worst = median(server.pings), max(server.pings)
    pings = f"({len(server.pings)} PINGs)"
    figure = f"{middle * 1000:.1f} ms, at worst {worst * 1000:.1f} ms {pings}"
    if middle >= SLOW:
        fix = f"{server.cli} --latency\n# run the workers in its region"
        yield warn("it is far away, or busy; each task waits for it several times", figure, fix=fix)
    elif worst >= STALLED:
        reason = "something held it up: a slow command, a fork to save, swapping"
        yield warn(reason, figure, fix=f"{server.cli} SLOWLOG GET 10")
    else:
        yield ok("it answers at once", figure)


def _memory(_: Facts, server: ServerFacts) -> Iterator[Outcome]:
    used, most = number(server, "used_memory"), number(server, "maxmemory")
    room = most or number(server, "total_system_memory")
    figure = f"{size(used)} of {size(room)} ({'maxmemory' if most else 'its machine'})"
    fix = f"{server.cli} --bigkeys\n# see redis.queues and redis.results as well"
    evicted = number(server, "evicted_keys")
    policy = str(server.info.get("maxmemory_policy"))
    if not room:
        yield unknown("it has no maxmemory, and does not say how much memory its machine has")
    elif evicted:
        since = duration(number(server, "uptime_in_seconds"))
        figure = f"{evicted:,} keys since it started {since} ago"
        fix += f"\n{server.cli} CONFIG RESETSTAT  # once it is mended: counts anew"
        yield warn("it was full, and threw keys away: see redis.eviction", figure, fix=fix)
    elif used < room * NEARLY_FULL:
        yield ok("there is room", figure)
    elif most and policy.startswith("allkeys-"):
        yield ok("it is meant to be full, see redis.eviction", figure)
    elif used < room * NO_ROOM:
        yield warn("it is nearly full", figure, fix=fix)
    elif most:
        fix += f"\n{server.cli} CONFIG SET maxmemory {2 * most}  # bytes; or a larger plan"
        reason = "no task can be sent (OOM command not allowed when used memory > 'maxmemory')"
        yield fail(reason, figure, fix=fix)
    else:
        yield fail("the system may kill it at any time", figure, fix=fix)


def _eviction(_: Facts, server: ServerFacts) -> Iterator[Outcome]:
    limited = number(server, "maxmemory")
    policy = str(server.info.get("maxmemory_policy") or "")
    fix = f"{server.cli} CONFIG SET maxmemory-policy noeviction  # and in redis.conf"
    lost = {"messages": "whole queues", "figures": "the figures of tasks"}
    risks = " and ".join(loss for role, loss in lost.items() if role in server.roles)
    if not policy:
        yield unknown("it does not say its maxmemory-policy")
    elif policy == "noeviction" or not limited:
        yield ok("nothing is thrown away" if limited else "there is no maxmemory", policy)
    elif policy.startswith("volatile-"):
        yield ok("only what expires is thrown away: results, but no queue", policy)
    elif risks:
        yield fail(f"when it is full it throws away {risks}", policy, fix=fix)
    else:
        yield warn("when it is full it throws away results", policy, fix=fix)


def _persistence(_: Facts, server: ServerFacts) -> Iterator[Outcome]:
    aof, save = number(server, "aof_enabled"), server.config.get("save")
    failed = server.info.get("rdb_last_bgsave_status") == "err"
    stops = save and server.config.get("stop-writes-on-bgsave-error") != "no"
    if "config" in server.missed:
        stops = not server.pings  # a Redis that refuses writes refuses a PING as well
    disk = f"{server.cli} CONFIG GET dir  # is that disk full, or not for redis-server?"
    aof_failed = aof and server.info.get("aof_last_write_status") == "err"
    if aof_failed or (failed and stops):
        status = f"{'rdb_last_bgsave' if failed else 'aof_last_write'}_status: err"
        reason = "it cannot write to its disk, and refuses all writes (MISCONF)"
        yield fail(reason, status, fix=disk)
    elif failed and save:
        reason = "a restart loses what came since its last save"
        yield warn(reason, "rdb_last_bgsave_status: err", fix=disk)
    elif aof:
        yield ok("a restart loses a second at most", "append-only file")
    elif save:
        yield ok("a restart loses what came since the last save", f"save {save}")
    else:
        server.need("config")
        yield _unsaved(server)


def _unsaved(server: ServerFacts) -> Outcome:
    nothing = "no save, no append-only file"
    if "messages" not in server.roles:
        return ok("a restart loses all of it", nothing)
    fix = (
        f"{server.cli} CONFIG SET appendonly yes  # and in redis.conf\n"
        f'{server.cli} CONFIG SET save "3600 1 300 100"  # or this: less to write\n'
        "# none of it is needed where you develop"
    )
    return warn("a restart loses all tasks that wait", nothing, fix=fix)


def _queues(_: Facts, server: ServerFacts) -> Iterator[Outcome]:
    server.need("messages")
    messages = server.messages
    long = [outcome for name in server.queues for outcome in _long(server, name)]
    yield from long
    waiting = counted(sum(server.queues.values()), "message")
    figure = f"{waiting} in {counted(len(server.queues), 'queue')}"
    figure += "" if messages.complete else f"; {PARTLY}"
    if messages.held:
        oldest = duration(messages.oldest)
        figure += f"; {messages.held:,} held by workers, the oldest for {oldest}"
    if messages.overdue and messages.oldest > messages.visibility + GRACE:
        timeout = f"the visibility timeout ({duration(messages.visibility)})"
        reason = f"{messages.overdue:,} are held for longer than {timeout}: their workers are gone"
        yield warn(reason, figure, fix="celery -A proj worker  # it puts them back in minutes")
    elif not long:
        yield ok("no queue is long", figure)


def _long(server: ServerFacts, name: str) -> Iterator[Outcome]:
    """A warning, if the queue *name* is long or heavy."""
    count, weight = server.queues[name], server.messages.weights.get(name, 0)
    room = int(server.info.get("maxmemory") or 0)
    if count >= LONG or weight > room * HEAVY > 0:
        share = f", {weight / room:.0%} of maxmemory" if room else ""
        about = f", about {size(weight)}{share}" if weight else ""
        quoted = shlex.quote(printable(name))
        fix = (
            f"celery -A proj worker -Q {quoted}  # one more worker for it\n"
            f"celery -A proj purge -Q {quoted}  # only if all of them may be lost"
        )
        reason = "more is sent than is done" if count >= LONG else "it fills the Redis"
        figure = counted(count, "message") + about
        yield warn(reason, figure, fix=fix, subject=f"queue {name}")


def _results(facts: Facts, server: ServerFacts) -> Iterator[Outcome]:
    server.need("results")
    sample = server.results
    if sample is None:
        return
    kind = "results" if sample.complete else "sampled results"
    figure = f"{sample.lasting:,} of {sample.sampled:,} {kind} never expire"
    if sample.lasting < LASTING:
        yield ok("results go by themselves", figure)
        return
    places = {place.role: place.settings.redis_url for place in server.places}
    cli = redis_cli(places["results"] or "")
    each = f'[ "$({cli} TTL "$key")" != -1 ] || {cli} EXPIRE "$key" {EXPIRES}'
    fix = (
        f"{setting(facts.where.app, 'result_expires', EXPIRES)}  # seconds, for those to come\n"
        "# for those that are there:\n"
        f"{cli} --scan --pattern '*{RESULTS}*' | while read -r key; do {each}; done"
    )
    yield warn("results pile up, and these never go by themselves", figure, fix=fix)


CHECKS: Final[tuple[Check, ...]] = (
    Check("redis.reachable", "whether each Redis answers, for each use", _reachable),
    Check("redis.tls", "TLS, and whether certificates are checked", _tls),
    Check("redis.latency", "how long a few PINGs take", each_server(_latency)),
    Check("redis.clients", "connected_clients against maxclients", each_server(clients)),
    Check("redis.forecast", "clients of this configuration", each_server(forecast)),
    Check("redis.memory", "used_memory and evicted_keys", each_server(_memory)),
    Check("redis.eviction", "maxmemory-policy", each_server(_eviction)),
    Check("redis.persistence", "what a restart loses", each_server(_persistence)),
    Check("redis.queues", "messages that wait or are held", each_server(_queues, "messages")),
    Check("redis.results", "results without expiry", each_server(_results, "results")),
)
