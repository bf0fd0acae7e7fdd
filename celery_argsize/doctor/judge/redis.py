"""The checks of the Redis servers. ``redis_clients`` judges their clients."""

from __future__ import annotations

import shlex
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.app import setting
from celery_argsize.doctor.checks import Check, Outcome, fail, ok, unknown, warn
from celery_argsize.doctor.errors import checked_lines, fix_for, url_line
from celery_argsize.doctor.judge.redis_clients import NEARLY_FULL, NO_ROOM, clients, each_server, forecast, number
from celery_argsize.doctor.redis_facts import REPLICA, RESULTS, redis_cli
from celery_argsize.words import counted, duration, printable, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.doctor.facts import Facts
    from celery_argsize.doctor.redis_facts import Place, Role, ServerFacts

#: Seconds of the median PING from which it warns: a task takes several round trips.
SLOW: Final = 0.1
#: Seconds of the slowest PING from which it warns.
STALLED: Final = 1.0
#: Messages in a queue: a quarter of an hour, at ten a second.
LONG: Final = 10_000
#: Seconds that a message may be overdue until a worker looks for it.
GRACE: Final = 600.0
#: Results without expiry in a sample. Fewer may be meant to stay.
LASTING: Final = 100
#: Seconds that results are to live, from a field report.
EXPIRES: Final = 3600


def _reachable(facts: Facts) -> list[Outcome]:
    servers, outcomes = facts.redis.get(), []
    carried = any("messages" in server.roles and not server.error for server in servers)
    for server in servers:
        info, place = server.info, server.places[0]
        replica = info.get("role") == "slave" and info.get("slave_read_only")
        why = server.error or (REPLICA if replica else "")
        fix = fix_for(facts.where.app, place.url, why, place.role)
        if server.error and carried and "messages" in server.roles:
            outcome = warn(f"{why}; another broker of the list takes its place", fix=fix)
        elif why:
            outcome = fail(why, fix=fix)
        else:
            outcome = ok("it answers", f"Redis {info.get('redis_version', '')}")
        outcomes.append(outcome._replace(subject=server.subject))
    return outcomes


def _tls(facts: Facts) -> list[Outcome]:
    places = [(server.places[0].url, place) for server in facts.redis.get() for place in server.places]
    required = any(place.settings.require_redis_ssl for _, place in places)  # set for the figures only
    roles: dict[tuple[str, Outcome], list[Role]] = defaultdict(list)
    for url, place in places:
        if not place.error:
            roles[url, _tls_of(facts, place, required=required)].append(place.role)
    return [outcome._replace(subject=f"{url} for {', '.join(roles[url, outcome])}") for url, outcome in roles]


def _tls_of(facts: Facts, place: Place, *, required: bool) -> Outcome:
    if place.certificates == "none":
        reason = "nobody checks its certificate"
        if place.role == "messages" and not facts.conf.get("broker_use_ssl"):
            reason += " (kombu checks nothing for rediss:// unless told to)"
        return warn(reason, "TLS", fix=checked_lines(facts.where.app, place.role))
    if place.certificates:
        return ok("the certificate is checked", "TLS")
    if required and not place.address.startswith("/"):
        fix = url_line(facts.where.app, place.role, "rediss://…")
        return fail("it travels in plain text, and require_redis_ssl is set", "no TLS", fix=fix)
    return ok("TLS is not required", "no TLS")


def _latency(_: Facts, server: ServerFacts) -> Iterator[Outcome]:
    server.need("pings")
    usual, worst = median(server.pings), max(server.pings)
    figure = f"{usual * 1000:.1f} ms, at worst {worst * 1000:.1f} ms"
    if usual >= SLOW or worst >= STALLED:
        fix = f"{server.cli} --latency  # is it far away?\n{server.cli} SLOWLOG GET 10"
        yield warn("it is far away, or a slow command or a fork holds it up", figure, fix=fix)
    else:
        yield ok("it answers at once", figure)


def _memory(_: Facts, server: ServerFacts) -> Iterator[Outcome]:
    used, most = number(server, "used_memory"), number(server, "maxmemory")
    room = most or number(server, "total_system_memory")
    figure = f"{size(used)} of {size(room)} ({'maxmemory' if most else 'its machine'})"
    fix = f"{server.cli} --bigkeys"
    if not room:
        yield unknown("its memory is not known")
    elif evicted := number(server, "evicted_keys"):
        since = duration(number(server, "uptime_in_seconds"))
        figure = f"{evicted:,} keys since it started {since} ago"
        fix += f"\n{server.cli} CONFIG RESETSTAT"
        yield warn("it was full and threw keys away", figure, fix=fix)
    elif used < room * NEARLY_FULL:
        yield ok("there is room", figure)
    elif most and "allkeys-" in str(server.info.get("maxmemory_policy")):
        yield ok("it is meant to be full", figure)
    elif used < room * NO_ROOM:
        yield warn("it is nearly full", figure, fix=fix)
    elif most:
        fix += f"\n{server.cli} CONFIG SET maxmemory {2 * most}"
        yield fail("no task can be sent (OOM command not allowed)", figure, fix=fix)
    else:
        yield fail("the system may kill it at any time", figure, fix=fix)


def _eviction(_: Facts, server: ServerFacts) -> Iterator[Outcome]:
    limited = number(server, "maxmemory")
    policy = str(server.info.get("maxmemory_policy") or "")
    fix = f"{server.cli} CONFIG SET maxmemory-policy noeviction  # and in redis.conf"
    if not policy:
        yield unknown("it does not say its maxmemory-policy")
    elif policy == "noeviction" or not limited:
        yield ok("nothing is thrown away", policy)
    elif policy.startswith("volatile-"):
        yield ok("only results are thrown away", policy)
    else:
        verdict = warn if server.roles == {"results"} else fail
        lost = " and ".join(sorted(server.roles))
        yield verdict(f"when it is full it throws away {lost}", policy, fix=fix)


def _persistence(_: Facts, server: ServerFacts) -> Iterator[Outcome]:
    info, save = server.info, server.config.get("save")
    aof = number(server, "aof_enabled")
    aof_failed = aof and info.get("aof_last_write_status") == "err"
    save_failed = info.get("rdb_last_bgsave_status") == "err"
    refuses = save_failed and save and server.config.get("stop-writes-on-bgsave-error") != "no"
    if "config" in server.missed:
        refuses = save_failed and not server.pings  # refused like writes
    figure = f"{'aof_last_write' if aof_failed else 'rdb_last_bgsave'}_status: err"
    lost = "a restart loses what came since the last save"
    disk = f"{server.cli} CONFIG GET dir  # is that disk full?"
    if aof_failed or refuses:
        yield fail("it cannot save, and refuses writes (MISCONF)", figure, fix=disk)
    elif save_failed and save:
        yield warn(lost, figure, fix=disk)
    elif aof:
        yield ok("a restart loses a second at most", "append-only file")
    elif save:
        yield ok(lost, f"save {save}")
    else:
        server.need("config")
        fix = f"{server.cli} CONFIG SET appendonly yes  # and in redis.conf"
        if "messages" in server.roles:
            yield warn("a restart loses all tasks that wait", "nothing is saved", fix=fix)
        else:
            yield ok("a restart loses all of it", "nothing is saved")


def _queues(_: Facts, server: ServerFacts) -> Iterator[Outcome]:
    server.need("messages")
    messages, waiting = server.messages, server.messages.waiting
    long = [name for name, count in waiting.items() if count >= LONG]
    for name in long:
        figure = counted(waiting[name], "message")
        fix = f"celery -A proj worker -Q {shlex.quote(printable(name))}"
        yield warn("more is sent than is done", figure, fix=fix, subject=f"queue {name}")
    figure = f"{counted(sum(waiting.values()), 'message')} in {counted(len(waiting), 'queue')}"
    if messages.unacked:
        figure += f"; {messages.unacked:,} held by workers, the oldest for {duration(messages.oldest)}"
    if messages.overdue and messages.oldest > messages.visibility + GRACE:
        timeout = f"{duration(messages.visibility)} (visibility_timeout)"
        reason = f"{messages.overdue:,} are held for over {timeout}: their workers are gone"
        yield warn(reason, figure, fix="celery -A proj worker  # it puts them back")
    elif not long:
        yield ok("no queue is long", figure)


def _results(facts: Facts, server: ServerFacts) -> Iterator[Outcome]:
    server.need("results")
    sample = server.results
    kind = "results" if sample.complete else "sampled results"
    figure = f"{sample.without_expiry:,} of {sample.sampled:,} {kind} never expire"
    if sample.without_expiry < LASTING:
        yield ok("results go by themselves", figure)
        return
    urls = {place.role: place.settings.redis_url for place in server.places}
    cli = redis_cli(urls["results"] or "")
    each = f'[ "$({cli} TTL "$key")" != -1 ] || {cli} EXPIRE "$key" {EXPIRES}'
    fix = (
        f"{setting(facts.where.app, 'result_expires', EXPIRES)}\n"
        f"# for those that are there:\n"
        f"{cli} --scan --pattern '*{RESULTS}*' | while read -r key; do {each}; done"
    )
    yield warn("results pile up", figure, fix=fix)


CHECKS: Final = (
    Check("redis.reachable", "whether each Redis answers", _reachable),
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
