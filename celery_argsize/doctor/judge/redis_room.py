"""Judges of Redis' clients: how many there are, who they are, how many this configuration can open, who was refused."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from celery_argsize.connections.budget import connection_budget
from celery_argsize.connections.fit import fitting, needed, needed_for_results, remedies
from celery_argsize.connections.model import GREEN, items_of
from celery_argsize.connections.shrink import forecast as forecast_live
from celery_argsize.doctor.app import setting, transport_option
from celery_argsize.doctor.checks import Outcome, fail, ok, unknown, warn
from celery_argsize.doctor.facts import Unavailable
from celery_argsize.doctor.judge.settings import live_nodes
from celery_argsize.doctor.redis_facts import RESULTS
from celery_argsize.errors import ConfigError
from celery_argsize.redis_url import parse_redis_url
from celery_argsize.words import duration, printable, size, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery_argsize.connections.budget import ConnectionBudget
    from celery_argsize.doctor.facts import Facts
    from celery_argsize.doctor.redis_facts import Holders, Place, Role, ServerFacts

#: Groups of clients that are shown: the rest are few.
SHOWN: Final = 6

#: Up to this many clients, a plan is so small that connections without a bound are going to meet it: hosted plans of
#: 30 to 40, by field reports. Redis' own default is 10,000.
SMALL: Final = 100

#: From a field report of a Redis that ran out of clients.
FEW: Final = 4


def clients(facts: Facts) -> list[Outcome]:
    """connected_clients against maxclients."""
    full = [_full(facts, server) for server in facts.redis.get() if server.full]
    others = each_server(facts, lambda server: _clients_of(facts, server), "info")
    return full + [one for one in others if one.subject not in {refused.subject for refused in full}]


def _full(facts: Facts, server: ServerFacts) -> Outcome:
    reason = "it has no place for another client: workers that reconnect, and whoever sends a task, are refused"
    return of_server(server, fail(reason, "max number of clients reached", fix=_fewer(facts, server)))


def _clients_of(facts: Facts, server: ServerFacts) -> Outcome:
    most = server.maxclients
    if not most:
        server.need("config")
        message = "it does not say its maxclients"
        raise Unavailable(message)
    listed = sum(one.clients for one in server.holders)
    count = max(0, number(server, "connected_clients") - 1) if "clients" in server.missed else listed
    figure = f"{count:,} of {most:,} clients"
    held = _held(facts, server)
    if count < most * NEARLY_FULL:
        return ok(_first(facts, server), figure)
    fix = "\n".join([*held, _fewer(facts, server)])
    if count >= most * NO_ROOM:
        return fail("the next few clients are refused: max number of clients reached", figure, fix=fix)
    return warn("it is nearly out of clients; a restart of a worker opens more at once", figure, fix=fix)


def _first(facts: Facts, server: ServerFacts) -> str:
    """Who has the most of them, in a few words."""
    if not server.holders:
        return "there is room"
    one = server.holders[0]
    who = ", ".join(filter(None, (one.name, one.address, _process(facts, one), one.does)))
    return f"there is room; the most alike: {one.clients} ({who})"


def _held(facts: Facts, server: ServerFacts) -> list[str]:
    """Who holds them, as lines of a table."""
    if not server.holders:
        why, allowed = server.missed.get("clients", ("", ""))
        return [f"who holds them is not known: {why}", *([allowed] if allowed else [])] if why else []
    rows = [("who holds them:", "name", "from", "process", "what they do")]
    rows += [
        (f"{one.clients:,}", one.name or "-", one.address or "-", _process(facts, one) or "-", one.does)
        for one in server.holders[:SHOWN]
    ]
    rest = sum(one.clients for one in server.holders[SHOWN:])
    rows += [(f"{rest:,}", "others", "", "", "")] if rest else []
    return [line.strip() for line in table(rows, right=False)]


def _process(facts: Facts, one: Holders) -> str:
    """The workers whose processes have these connections; else the pids."""
    workers = facts.workers.found
    of = {pid: node.name for node in workers.nodes for pid in (node.pid, *node.processes)} if workers else {}
    names = [of.get(pid, f"pid {pid}") for pid in one.pids]
    shown = list(dict.fromkeys(names))
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")  # noqa: PLR2004 - a few


def _fewer(facts: Facts, server: ServerFacts) -> str:
    """The way out of field reports: fewer connections now, then settings, then a larger Redis."""
    most = server.maxclients
    larger = f"{cli(server)} CONFIG SET maxclients {max(2 * most, 100) if most else 'NUMBER'}"
    larger += (
        "  # or a plan with more clients" if most else "  # above what CONFIG GET maxclients says; or a larger plan"
    )
    shrink = "celery -A proj argsize doctor --apply-pool-shrink"
    settings = [*_ceilings(facts), f"celery -A proj worker --concurrency={FEW}"]
    if live_nodes(facts) and not server.full:
        return "\n".join([shrink, *settings, f"{cli(server)} CLIENT LIST", larger])
    stop = "# stop a worker, or whatever else is connected: those below need a connection themselves"
    return "\n".join([stop, larger, f"{cli(server)} CLIENT LIST", shrink, *settings])


def _ceilings(facts: Facts) -> list[str]:
    """Lines that bound the three pools to few, but not to fewer than its tasks need: what is beyond fails."""
    if facts.where.app is None:
        return [setting(None, "broker_pool_limit", FEW)]
    try:
        setup = _budget(facts, SMALL).setup
    except Unavailable:
        return [setting(facts.where.app, "broker_pool_limit", FEW)]
    return _pools(facts, FEW, max(FEW, needed(setup)), max(FEW, needed_for_results(setup)))


def _pools(facts: Facts, publishing: int | None, broker: int | None, results: int | None) -> list[str]:
    """Lines that bound the three pools, or those of them that matter; what else is in the app's options stays."""
    app = facts.app
    lines = (
        (publishing, setting(app, "broker_pool_limit", publishing)),
        (broker, transport_option(facts.app, "max_connections", broker)),
        (results, setting(app, "redis_max_connections", results)),
    )
    return [line for bound, line in lines if bound is not None]


def _budget(facts: Facts, most: int) -> ConnectionBudget:
    """What the app's configuration can open, with the concurrency and the pool of the live workers, if any."""
    nodes = live_nodes(facts)
    concurrency = max((node.concurrency for node in nodes), default=None) or None
    pool = next((node.pool for node in nodes if node.pool in GREEN), None)
    try:
        return connection_budget(facts.app, most, max(1, len(nodes)), concurrency, pool=pool)
    except ConfigError as exc:
        raise Unavailable(str(exc)) from None


#: Which of ``Setup``'s servers has which role.
_FIELDS: Final = {"messages": ("read", "write"), "results": ("result",)}


def _leading_to(server: ServerFacts, budget: ConnectionBudget) -> ConnectionBudget:
    """*budget*, if *server* were in use: it may be one that takes over, of a list of brokers."""
    fields: dict[str, Any] = {
        name: server.address
        for names in map(_FIELDS.get, server.roles)
        if names and server.address not in [getattr(budget.setup, name) for name in names]
        for name in names
    }
    if not fields:
        return budget
    setup = replace(budget.setup, **fields)
    items, settings = items_of(setup), fitting(setup, budget.max_clients - budget.reserve)
    return replace(budget, setup=setup, items=items, settings=settings)


def forecast(facts: Facts) -> list[Outcome]:
    """What the configuration can open at most, against maxclients."""
    nodes = live_nodes(facts)
    live = {node.name: node.stats for node in nodes}

    def judge(server: ServerFacts) -> Outcome:
        if not server.maxclients:
            server.need("config")
            message = "it does not say its maxclients"
            raise Unavailable(message)
        budget = _leading_to(server, _budget(facts, server.maxclients))
        servers = forecast_live(live, budget) if live else budget.servers
        if server.address not in servers:
            return ok("nothing of this configuration connects to it", f"0 of {server.maxclients:,} clients")
        total = sum(node.concurrency for node in nodes)
        counted = f"{len(nodes):,} live worker{'s' * (len(nodes) > 1)}, {total:,} tasks at once" if nodes else ""
        return _forecast_of(budget, servers[server.address], counted, fix=_fitting(facts, budget))

    return each_server(facts, judge, "info")


def _fitting(facts: Facts, budget: ConnectionBudget) -> str:
    """Lines with which all fits."""
    found, app = budget.settings, facts.where.app
    if found is None:
        ways = remedies(budget.setup, budget.max_clients, budget.reserve)
        return "\n".join(["no settings fit; each of these would:", *ways])
    lines = [
        f"{setting(app, 'worker_concurrency', found.concurrency)}  # --concurrency on the command line wins",
        *_pools(facts, found.broker_pool_limit, found.max_connections, found.redis_max_connections),
        *([setting(app, "result_backend_thread_safe", True)] if found.result_backend_thread_safe else []),  # noqa: FBT003
    ]
    return "\n".join(lines)


def _forecast_of(budget: ConnectionBudget, most: int | None, live: str, *, fix: str) -> Outcome:
    room, setup = budget.max_clients, budget.setup
    workers = live or f"one worker is assumed, with concurrency {setup.concurrency}"
    counted = f"{workers}; {setup.producers} process{'es' * (setup.producers != 1)} sending"
    figure = f"{'any number' if most is None else f'{most:,} at most'} of {room:,} clients ({counted})"
    if most is None:
        if room > SMALL:
            return ok("nothing bounds them, but there is much room", figure)
        return warn("nothing bounds how many connections this configuration opens", figure, fix=fix)
    if most + budget.reserve > room:
        reason = "under load, this configuration opens more connections than the Redis takes"
        return warn(reason, figure, fix=fix)
    return ok("all that this configuration can open fits", figure)


def rejected(facts: Facts) -> list[Outcome]:
    """rejected_connections."""
    return each_server(facts, _rejected_of, "info")


def _rejected_of(server: ServerFacts) -> Outcome:
    count = number(server, "rejected_connections")
    if not count:
        return ok("nobody was refused", uptime(server))
    reason = "clients were refused, as there were maxclients of them already"
    fix = f"see redis.clients and redis.forecast\n{cli(server)} CONFIG RESETSTAT  # once it is mended: counts anew"
    return warn(reason, f"{count:,} {uptime(server)}", fix=fix)


#: Parts of a limit, of clients or of memory: where hosts of Redis send a mail, and where the next burst meets it.
NEARLY_FULL: Final = 0.80
NO_ROOM: Final = 0.95

_PASSWORD: Final = "# redis-cli takes the password from a variable: export REDISCLI_AUTH=…"  # noqa: S105 - is none

#: Files of TLS, as redis-py's options and as redis-cli's.
_FILES: Final = (("ssl_ca_certs", "--cacert"), ("ssl_certfile", "--cert"), ("ssl_keyfile", "--key"))


def each_server(
    facts: Facts,
    judge: Callable[[ServerFacts], Outcome | Sequence[Outcome] | None],
    *needs: str,
    role: Role | None = None,
) -> list[Outcome]:
    """What *judge* says of each server that has *role*; unknown where one of the looks *needs* was not done."""
    found: list[Outcome] = []
    for server in facts.redis.get():
        if role is not None and role not in server.roles:
            continue
        try:
            server.need(*needs)
            said = judge(server)
        except Unavailable as exc:
            said = unknown(str(exc), fix=dict(server.missed.values()).get(str(exc), ""))
        said = [said] if isinstance(said, Outcome) else said or []
        found += [of_server(server, one) for one in said]
    return found


def of_server(server: ServerFacts, said: Outcome) -> Outcome:
    """*said* with its subject, and with where redis-cli has the password from, once, if it needs one."""
    asks = "redis-cli" in said.fix and _PASSWORD not in said.fix
    secret = asks and any(urlsplit(_url(one)).password for one in server.places if not one.error)
    fix = f"{_PASSWORD}\n{said.fix}" if secret else said.fix
    return said._replace(subject=said.subject or server.subject, fix=fix)


def version(server: ServerFacts) -> tuple[int, ...]:
    """Its version's first two numbers; fewer, where it does not say them."""
    said = str(server.info.get("redis_version", ""))
    return tuple(int(part) for part in said.split(".")[:2] if part.isdecimal())


def number(server: ServerFacts, name: str) -> int:
    """The number that INFO has under *name*.

    Raises:
        Unavailable: this server does not say it.
    """
    said = server.info.get(name)
    if not isinstance(said, (int, float)):
        message = f"its INFO has no {name}"
        raise Unavailable(message)
    return int(said)


def uptime(server: ServerFacts) -> str:
    """Since when its counters count."""
    return f"since it started {duration(number(server, 'uptime_in_seconds'))} ago"


def cli(server: ServerFacts, role: Role | None = None) -> str:
    """How to call redis-cli for it; the password comes from REDISCLI_AUTH."""
    place = next((one for one in server.places if role is None or one.role == role), server.places[0])
    if place.error:
        return "redis-cli -h HOST"
    parts = parse_redis_url(place.settings.redis_url or "redis://")
    where = urlsplit(parts.urls[0])
    user = f" --user {shlex.quote(printable(unquote(where.username)))}" if where.username else ""
    more = user + (f" -n {place.database}" if role and place.database else "")
    if where.scheme == "unix":
        return f"redis-cli -s {shlex.quote(where.path)}{more}"
    tls = _tls(place) if parts.tls else ""
    if parts.kind == "sentinel":
        return f"redis-cli -h PRIMARY{tls}{more}"
    return f"redis-cli -h {where.hostname} -p {where.port}{tls}{more}"


def _url(place: Place) -> str:
    return parse_redis_url(place.settings.redis_url or "redis://").urls[0]


def _tls(place: Place) -> str:
    """The options with which redis-cli checks as the app does."""
    said = {name: of[0] for name, of in parse_qs(urlsplit(_url(place)).query).items()}
    settings = {name: getattr(place.settings, f"redis_{name}") for name, _ in _FILES}
    given = {**place.settings.redis_options, **{name: value for name, value in settings.items() if value}, **said}
    files = [f" {option} {shlex.quote(printable(str(given[name])))}" for name, option in _FILES if given.get(name)]
    return "".join([" --tls", *([" --insecure"] if place.tls.checks == "none" else []), *files])


#: Messages in one queue. A worker that takes 10 a second needs a quarter of an hour for these.
LONG: Final = 10_000
#: Part of maxmemory that one queue may take.
HEAVY: Final = 0.10

#: A SCAN is bounded.
PARTLY: Final = "the Redis has too many keys to look for all queues of others"

#: Results that never expire, in the sample: with fewer, somebody kept them on purpose, and they weigh nothing.
LASTING: Final = 100

#: Seconds that a message may be overdue: workers look for those each 100 s, one after the other (kombu:
#: unacked_restore_interval, 10 s, times unacked_restore_throttle, 10).
GRACE: Final = 600.0

#: Seconds that results live, in a field report; Celery's default is a day.
EXPIRES: Final = 3600
#: Since this version, EXPIRE knows NX: only where there is no expiry yet.
CONDITIONAL: Final = (7, 0)


def queues(facts: Facts) -> list[Outcome]:
    """How long they are."""
    return each_server(facts, lambda server: _queues_of(facts, server), "queues", role="messages")


def _queues_of(facts: Facts, server: ServerFacts) -> list[Outcome]:
    if facts.where.app is None:
        return []
    long = [one for name in server.queues if (one := _long(facts, server, name))]
    if long:
        return long
    waiting = sum(server.queues.values())
    longest = max(server.queues, key=lambda name: server.queues[name], default="")
    most = f", the most in {longest}" if waiting else ""
    figure = f"{waiting:,} messages in {len(server.queues)} queue{'s' * (len(server.queues) != 1)}{most}"
    if server.contents.waiting.complete:
        return [ok("no queue is long", figure)]
    return [ok("no queue that the app names is long", f"{figure}; {PARTLY}")]


def _long(facts: Facts, server: ServerFacts, name: str) -> Outcome | None:
    """A warning, if this queue is long or heavy."""
    count, weight = server.queues[name], server.contents.waiting.weights.get(name, 0)
    room = int(server.info.get("maxmemory") or 0)
    heavy = bool(room) and weight > room * HEAVY
    if count < LONG and not heavy:
        return None
    workers = facts.workers.found
    takers = sum(name in node.queues for node in workers.nodes) if workers else 0
    about = f", about {size(weight)}" if weight else ""
    share = f", {weight / room:.0%} of maxmemory" if room and weight else ""
    taken = f"; {takers} worker{'s take' if takers != 1 else ' takes'} from it" if takers else ""
    reason = "more is sent than is done" if count >= LONG else "it fills the Redis"
    fix = (
        f"celery -A proj worker -Q {_quoted(name)}  # one more worker for it\n"
        f"celery -A proj inspect active_queues  # who takes from which queue\n"
        f"celery -A proj purge -Q {_quoted(name)}  # only if all of them may be lost"
    )
    return warn(f"{reason}{taken}", f"{count:,} messages{about}{share}", fix=fix, subject=f"queue {name}")


def _quoted(name: str) -> str:
    return shlex.quote(printable(name))


def unacked(facts: Facts) -> list[Outcome]:
    """Messages that workers took."""
    return each_server(facts, _unacked_of, "unacked", role="messages")


def _unacked_of(server: ServerFacts) -> Outcome | None:
    found = server.contents.unacked
    if found is None:
        return None
    oldest = f", the oldest for {duration(found.oldest)}" if found.held else ""
    figure = f"{found.held:,} messages held{oldest}"
    if not found.overdue or found.oldest <= found.visibility + GRACE:
        return ok("workers hold what they run or are to run next", figure)
    reason = (
        f"{found.overdue:,} are held for longer than the visibility timeout ({duration(found.visibility)}): the "
        "workers that took them are gone, and none runs that would put them back"
    )
    return warn(reason, figure, fix="celery -A proj worker  # it puts them back within minutes, and they run again")


def results(facts: Facts) -> list[Outcome]:
    """Whether they expire."""
    return each_server(facts, lambda server: _results_of(facts, server), "results", role="results")


def _results_of(facts: Facts, server: ServerFacts) -> Outcome:
    found = server.contents.results
    if found is None:
        message = "they were not looked at"
        raise Unavailable(message)
    figure = f"{found.lasting:,} of {found.sampled:,} {'results' if found.complete else 'sampled results'} never expire"
    if found.lasting < LASTING:
        return ok("results go by themselves", figure)
    reason = "results pile up; those that are there do not go by themselves, whatever the setting becomes"
    client = cli(server, "results")
    each = f'{client} EXPIRE "$key" {EXPIRES} NX'
    if version(server) < CONDITIONAL:
        each = f'if [ "$({client} TTL "$key")" = -1 ]; then {client} EXPIRE "$key" {EXPIRES}; fi'
    fix = (
        f"{setting(facts.where.app, 'result_expires', EXPIRES)}  # seconds; for those to come\n"
        f"# for those that are there:\n"
        f"{client} --scan --pattern '*{RESULTS}*' | while read -r key; do {each}; done"
    )
    return warn(reason, figure, fix=fix)


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
        raise Unavailable(message)
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
        raise Unavailable(message)
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
    when = f", {duration(max(0.0, now - saved))} ago" if now and saved else ""
    return f"save {server.config['save']}; {changes:,} changes since the last one{when}"


def _disk(server: ServerFacts) -> str:
    return (
        f"{cli(server)} CONFIG GET dir  # is that disk full, and may redis-server write there? its log says more\n"
        f"{cli(server)} BGSAVE  # once it is mended: a save that works ends it"
    )
