"""The checks of the Redis servers, and the judges of those about reaching one: answers, TLS, latency, version."""

from __future__ import annotations

import os
from statistics import median
from typing import TYPE_CHECKING, Final

from celery_argsize.api.location import locate
from celery_argsize.doctor.app import spelled
from celery_argsize.doctor.checks import VERDICTS, Check, Outcome, fail, ok, unknown, warn
from celery_argsize.doctor.judge.redis_room import (
    cli,
    clients,
    each_server,
    evicted,
    eviction,
    forecast,
    memory,
    of_server,
    persistence,
    queues,
    rejected,
    results,
    unacked,
    version,
)
from celery_argsize.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.doctor.facts import Facts, Scope
    from celery_argsize.doctor.redis_facts import Place, Role, ServerFacts

#: Milliseconds. Redis' documentation has 0.2 for a network of 1 Gbit/s; between two regions of a cloud it is 50 to 150.
#: Each task takes several round trips, so that a worker of one process gets less than two tasks done a second.
SLOW: Final = 100.0
#: For the worst of a few PINGs: something kept the server (or this machine) from answering anyone.
STALLED: Final = 1000.0

#: SMISMEMBER, which the monitor's script needs, came with 6.2; those before it get no fixes from anyone but some hosts.
OLDEST: Final = (6, 2)

_URL_SETTINGS: Final[dict[Role, str]] = {
    "messages": "broker_url",
    "results": "result_backend",
    "figures": "argsize_redis_url",
}
_OPTIONS_SETTINGS: Final[dict[Role, str]] = {"results": "result_backend_transport_options"}
_TLS_SETTINGS: Final[dict[Role, str]] = {"messages": "broker_use_ssl", "results": "redis_backend_use_ssl"}


def _reachable(facts: Facts) -> list[Outcome]:
    servers = facts.redis.get()
    others = any("messages" in server.roles and not server.error for server in servers)
    return [of_server(server, _answers(facts, server, others=others)) for server in servers]


def _answers(facts: Facts, server: ServerFacts, *, others: bool) -> Outcome:
    if server.info.get("role") == "slave" and server.info.get("slave_read_only"):
        reason = "it is a read-only replica: no task can be sent, and nothing be written"
        return fail(reason, fix=f"{cli(server)} INFO replication  # master_host and master_port: give that URL")
    if not server.errors:
        version = server.info.get("redis_version")
        return ok("it answers", f"Redis {version}" if version else "")
    reason = "; ".join(dict.fromkeys(server.errors.values()))
    some = f" (for {', '.join(server.errors)})" if server.roles - set(server.errors) else ""
    fix = _way_in(facts, server, reason)
    if others and all(one.spare for one in server.places):
        return warn(f"{reason}; another broker of the list takes its place", "", fix=fix)
    return fail(f"{reason}{some}", fix=fix)


def _way_in(facts: Facts, server: ServerFacts, reason: str) -> str:
    role = next(iter(server.errors))
    if "signed by a CA" in reason or "certificate" in reason:
        lines = [line for role in server.errors for line in _verified(facts, role).splitlines()]
        return "\n".join(dict.fromkeys(lines))
    if "place for another client" in reason:
        return "see redis.clients"
    if "does not say which primary" in reason:
        options = _OPTIONS_SETTINGS.get(role, "broker_transport_options")
        return f"{_line(facts, options)} = {{'master_name': 'mymaster'}}  # with what else is in it"
    if "cannot work" in reason:
        return f"look at {spelled(facts.where.app, _URL_SETTINGS[role])}, and at the options with it"
    return f"{cli(server)} ping"


def _verified(facts: Facts, role: Role, place: Place | None = None) -> str:
    """Lines that make *role* check the certificate."""
    url = f"# and without ssl_cert_reqs in {_line(facts, _URL_SETTINGS[role])}"
    more = [url] if place is not None and "ssl_cert_reqs" in (place.settings.redis_url or "") else []
    if role not in _TLS_SETTINGS:
        checks = f"{_line(facts, 'argsize_redis_ssl_cert_reqs')} = 'required'"
        files = f"{_line(facts, 'argsize_redis_ssl_ca_certs')} = '/path/of/ca.pem'  # for a CA of your own"
        return "\n".join([checks, files, *more])
    options = '{"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/path/of/ca.pem"}'
    line = f"{_line(facts, _TLS_SETTINGS[role])} = {options}  # without ssl_ca_certs: the CAs of this system"
    return "\n".join(["import ssl", line, *more])


def _line(facts: Facts, name: str) -> str:
    app = facts.where.app
    return f"{'' if getattr(app, 'namespace', None) else 'app.conf.'}{spelled(app, name)}"


def _tls(facts: Facts) -> list[Outcome]:
    required = tls_required(facts.where)
    found = []
    for server in facts.redis.get():
        said = {one.role: _tls_of(facts, server, one, required=required) for one in server.places if not one.error}
        if said:
            found.append(of_server(server, _worst(said)))
    return found


def _worst(said: Mapping[Role, Outcome]) -> Outcome:
    """The worst of what was said of each role, and of which roles."""
    worst = max((one.verdict for one in said.values()), key=VERDICTS.index)
    roles = {role: one for role, one in said.items() if one.verdict == worst}
    same: dict[str, list[str]] = {}
    for role, one in roles.items():
        same.setdefault(one.reason, []).append(role)
    reason = "; ".join(f"{', '.join(of)}: {text}" for text, of in same.items())
    fix = "\n".join(dict.fromkeys(line for one in roles.values() for line in one.fix.splitlines()))
    return next(iter(roles.values()))._replace(reason=reason, fix=fix)


def _tls_of(facts: Facts, server: ServerFacts, place: Place, *, required: bool) -> Outcome:
    role, tls = place.role, place.tls
    if tls.trouble:
        return fail(tls.trouble, fix=_verified(facts, role, place))
    if tls.on and tls.checks == "none":
        reason = "nobody checks whose certificate it is: whoever is between can read all, and the password"
        if role == "messages" and not facts.conf.get("broker_use_ssl"):
            reason += " (kombu checks nothing for rediss:// unless told to)"
        return warn(reason, "TLS, certificate not checked", fix=_verified(facts, role, place))
    if tls.on:
        return ok("the certificate is checked", "TLS")
    return _plain(facts, server, place, required=required)


def _plain(facts: Facts, server: ServerFacts, place: Place, *, required: bool) -> Outcome:
    """Without TLS."""
    role = place.role
    socket_file = place.url.startswith(("unix:", "socket:", "redis+socket:"))
    url = f"{_line(facts, _URL_SETTINGS[role])} = 'rediss://…'"
    if required and not socket_file:
        return fail("they travel in plain text, and require_redis_ssl is set", "no TLS", fix=url)
    if socket_file:
        return ok("nothing leaves this machine", "a socket file")
    if server.public is None:
        return unknown("its address could not be found out, so there is no telling whether TLS is needed")
    if server.public:
        reason = "they, and the password, travel through the Internet in plain text"
        return warn(reason, "no TLS, a public address", fix=url)
    return ok("the address is a private one", "no TLS")


def _latency(facts: Facts) -> list[Outcome]:
    return each_server(facts, _latency_of, "pings")


def _latency_of(server: ServerFacts) -> Outcome:
    took = [seconds * 1000 for seconds in server.pings]
    figure = f"{median(took):.1f} ms, at worst {max(took):.1f} ms ({len(took)} PINGs)"
    if median(took) >= SLOW:
        reason = "Redis is far away, or busy; each task waits for it several times"
        return warn(reason, figure, fix=f"{cli(server)} --latency\nrun the workers in the region of the Redis")
    if max(took) >= STALLED:
        reason = "something kept it from answering: a slow command, a fork to save, swapping"
        return warn(reason, figure, fix=f"{cli(server)} SLOWLOG GET 10\n{cli(server)} --intrinsic-latency 10")
    return ok("it answers at once", figure)


def _version(facts: Facts) -> list[Outcome]:
    return each_server(facts, _version_of, "info")


def _version_of(server: ServerFacts) -> Outcome:
    said = str(server.info.get("redis_version", ""))
    found = version(server)
    if len(found) < len(OLDEST):
        return unknown("it does not say which version it is")
    if found >= OLDEST:
        return ok("as new as is needed", said)
    if "figures" in server.roles:
        return fail("celery_argsize needs Redis 6.2: no figures are kept", said, fix="upgrade Redis to 7.2 or later")
    return warn("it gets no security fixes since 2022", said, fix="upgrade Redis to 7.2 or later")


CHECKS: Final[tuple[Check, ...]] = (
    Check("redis.reachable", "whether each Redis answers, with the settings of each use", _reachable),
    Check("redis.tls", "scheme, REQUIRE_REDIS_SSL, and whether certificates are checked", _tls),
    Check("redis.latency", "how long a few PINGs take from here", _latency),
    Check("redis.clients", "connected_clients against maxclients, and who they are", clients),
    Check("redis.forecast", "how many connections this configuration can open, against maxclients", forecast),
    Check("redis.rejected", "connections refused because of maxclients", rejected),
    Check("redis.memory", "used_memory against maxmemory, or against the memory of its machine", memory),
    Check("redis.eviction", "maxmemory-policy: what it throws away when it is full", eviction),
    Check("redis.evicted", "keys thrown away because it was full", evicted),
    Check("redis.persistence", "whether a restart loses what is there", persistence),
    Check("redis.version", "the version of Redis", _version),
    Check("redis.queues", "messages waiting in each queue, all priorities", queues),
    Check("redis.unacked", "messages that workers took and did not acknowledge", unacked),
    Check("redis.results", "results without expiry, in a sample", results),
)


def tls_required(where: Scope) -> bool:
    """Whether ``require_redis_ssl`` (or ``REQUIRE_REDIS_SSL``) is set."""
    try:
        return locate(where.app, **where.given).settings.require_redis_ssl
    except ConfigError:
        return os.environ.get("REQUIRE_REDIS_SSL", "").strip().lower() in {"1", "true", "yes", "on"}
