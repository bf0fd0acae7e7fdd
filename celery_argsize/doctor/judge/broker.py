"""The check broker.reachable, and what to do for each reason why a broker cannot be used."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

from celery_argsize.doctor.app import setting, word_of
from celery_argsize.doctor.checks import Check, fail, ok, warn
from celery_argsize.doctor.facts import Unavailable
from celery_argsize.doctor.redis_facts import NO_ANSWER

if TYPE_CHECKING:
    from celery import Celery

    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts

#: Seconds to connect from which on they are shown, and from which on the broker is slow. A connection takes several
#: round trips, so these are some 0.2 s each.
SHOWN_SECONDS: Final = 0.5
SLOW_SECONDS: Final = 2.0


def _reachable(facts: Facts) -> list[Outcome]:
    found = facts.workers.get()
    if found.took is None:
        raise Unavailable(found.no_control)
    if found.broker_error:
        reason = f"No task is sent or run: {found.broker_error}."
        return [fail(reason, found.broker, fix=_how_to_reach(facts, found.broker, found.broker_error))]
    figure = f"{found.broker}, connected in {found.took:.1f} s" if found.took >= SHOWN_SECONDS else found.broker
    if found.took < SLOW_SECONDS:
        outcomes = [ok("The broker takes connections.", figure)]
    else:
        reason = "The broker is there, and slow: whoever sends a task waits that long, and workers are hard to ask."
        fix = "# what takes so long: its machine, the network, or the look-up of its name\n"
        outcomes = [warn(reason, figure, fix=f"{fix}# to look all the same:\n{_patiently(facts)}")]
    return outcomes + [
        warn(
            f"It is one of the brokers that broker_url lists, and takes no connection: {why}. Workers and senders go "
            "on with another one; messages that are left in this one wait until it is back.",
            url,
            fix=_how_to_reach(facts, url, why),
            subject=url,
        )
        for url, why in found.unreached.items()
    ]


def _how_to_reach(facts: Facts, url: str, why: str) -> str:
    """Lines that see after the broker at *url*; where there was no answer it may only be slow."""
    fix = broker_fix(facts.app, url, why)
    return f"{fix}\n# or, if it is there and slow:\n{_patiently(facts)}" if NO_ANSWER in why else fix


def _patiently(facts: Facts) -> str:
    return f"celery -A {word_of(facts.app)} argsize doctor --timeout {max(60, round(3 * facts.where.seconds))}"


class _Fix(NamedTuple):
    """Lines, at a Redis and at a RabbitMQ; ``_urls`` and ``_lines`` have what is in braces."""

    cause: str
    """A part of what ``why_not`` says."""
    redis: str
    amqp: str = ""
    """Empty: the same, or nothing that is known of one."""


_LOGIN: Final = (
    "# with the user and the password that are right; of # / ? % @ : in them, write %23 %2F %3F %25 %40 %3A:\n{login}"
)
_CA: Final = "# with the CA that signed its certificate:\nimport ssl\n{use_ssl}"
_CLIENT: Final = "# with a certificate of your own, signed by a CA that it knows:\nimport ssl\n{use_ssl_client}"
_NO_TLS: Final = "# without TLS, and without broker_use_ssl; or with the port at which it speaks TLS:\n{plain}"
_WANTS_TLS: Final = "# if that port wants TLS:\n{tls}\n{look}"
_ADDRESS: Final = "# the address that is right:\n{other}"
_AWAY: Final = (
    "# see that it runs at {place}, and that no firewall is between; or give the address that is right:\n{other}\n"
    "{look}"
)
_START: Final = "# start what is to listen at {place}, or give the address that is right:\n{other}\n{look}"

_FIXES: Final = (
    _Fix(
        "no room for one more client",
        "# as soon as a connection is free, have live workers keep fewer:\n"
        "celery -A {app} argsize doctor --apply-pool-shrink\n"
        "# or let it take more: in its redis.conf; hosted, with a larger plan:\nmaxclients 10000",
    ),
    _Fix(
        "user name and password",
        _LOGIN,
        _LOGIN + "\n# on the broker's machine, to try them; guest may only come from "
        "there:\nrabbitmqctl authenticate_user USER PASSWORD",
    ),
    _Fix("wants a password", _LOGIN),
    _Fix("(NOPERM)", "{cli} ACL SETUSER NAME '~*' '&*' +@all -@dangerous +info"),
    _Fix(
        "(maxmemory)",
        "# what is in it: see redis.queues and redis.results; then more memory, or fewer keys:\n"
        "{cli} INFO memory\n{cli} CONFIG SET maxmemory SIZE  # more than now, such as 512mb",
    ),
    _Fix("it is a replica", "# master_host and master_port are there; give that URL:\n{cli} INFO replication\n{other}"),
    _Fix("(MISCONF)", "# why it could not save; mostly the disk is full:\n{cli} INFO persistence\ndf -h"),
    _Fix("still loading", "# nothing: it takes connections once it has loaded. How far it is:\n{cli} INFO persistence"),
    _Fix("no database of that number", "# a number below its setting databases (16 by default):\n{first}"),
    _Fix(
        "vhost",
        "",
        "# on the broker's machine, to see which there are, and to make it:\nrabbitmqctl list_vhosts\n"
        "rabbitmqctl add_vhost {vhost}\n# and for the user to use it:\n"
        "rabbitmqctl set_permissions -p {vhost} USER '.*' '.*' '.*'",
    ),
    _Fix("another host name", "# with the name that is in its certificate:\n{other}"),
    _Fix(
        "has expired",
        "# renew its certificate, on the broker's machine. Until when it is valid:\n"
        "openssl s_client -connect {place} </dev/null | openssl x509 -noout -dates",
    ),
    _Fix("CERTIFICATE_VERIFY_FAILED", _CA),
    _Fix("client certificate", _CLIENT),
    _Fix("speaks no TLS", _NO_TLS),
    _Fix("TLS handshake failed", f"{_NO_TLS}\n{_CA}"),
    _Fix("refused", _START),
    _Fix("name is not known", _ADDRESS),
    _Fix("could not be looked up", _ADDRESS),
    _Fix("no such socket", "# its unixsocket, or the files that broker_use_ssl names:\n{other}"),
    _Fix(
        "no sentinel",
        "# the name that its sentinels have for the primary, with what else is in it:\n{master_name}\n"
        "# to see it:\nredis-cli -h SENTINEL -p 26379 SENTINEL masters",
    ),
    _Fix("closed the connection", _WANTS_TLS),
    _Fix("a library is missing", "pip install 'celery[redis]'", "pip install celery"),
    _Fix("does not know the scheme", "{other}\n# or amqp://, sqs://, …: what Celery calls transports"),
    _Fix("", _AWAY),
)


def broker_fix(app: Celery, url: str, why: str) -> str:
    """Lines to paste where the broker at *url*, which has no secrets in it, cannot be used because of *why*."""
    scheme = url.partition(":")[0]
    amqp, redis = "amqp" in scheme, any(part in scheme for part in ("redis", "sentinel", "socket", "unix"))
    if not amqp and not redis and "the scheme" not in why and "library" not in why:
        return f"# see that it can be reached, and that the user and the password are right:\n{_broker_url(app, url)}"
    fix = next(one for one in _FIXES if one.cause in why)
    return ((amqp and fix.amqp) or fix.redis or fix.amqp).format(**_urls(app, url, amqp=amqp), **_lines(app, amqp=amqp))


def _urls(app: Celery, url: str, *, amqp: bool) -> dict[str, str]:
    """The words that come of the URL."""
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    tls = scheme in {"rediss", "amqps", "rediss+sentinel"}
    plain, secure, port = ("amqp", "amqps", 5671 if tls else 5672) if amqp else ("redis", "rediss", 6379)
    secret = "USER:PASSWORD@" if amqp else ":PASSWORD@"
    other = f"{secure if tls else plain}://{secret}HOST:{port}/{path if amqp else 0}"
    several = ";" in url or "," in place or "sentinel" in scheme  # what is in these is not taken apart
    other = f"{scheme}://{secret}HOST:26379/0" if "sentinel" in scheme else other
    file = not place and ("socket" in scheme or scheme == "unix")
    other = f"{scheme}:///path/of/redis.sock" if file else other
    client = f"-s {shlex.quote(f'/{path}')}" if file else "-h HOST" if several else f"-u {shlex.quote(url)}"
    see = "on the broker's machine, to see whether it runs" if amqp else "to see whether it answers"
    whole = {
        "login": f"{scheme}://{secret}{place}{slash}{path}",
        "first": f"{scheme}://{secret}{place}/0",
        "plain": f"{plain}://{secret}{place}{slash}{path}",
        "tls": f"{secure}://{secret}{place}{slash}{path}",
    }
    return {
        "place": place or f"/{path}",
        "vhost": shlex.quote(unquote(path) or "/"),
        "cli": f"redis-cli {client}",
        "look": f"# {see}:\n{'rabbitmqctl status' if amqp else f'redis-cli {client} ping'}",
        "other": _broker_url(app, other),
        **{name: _broker_url(app, other if several else one) for name, one in whole.items()},
    }


def _lines(app: Celery, *, amqp: bool) -> dict[str, str]:
    """The words that are settings."""
    prefix = "" if amqp else "ssl_"
    line = setting(app, "broker_use_ssl", 0).partition(" = ")[0]
    verified = f'"{prefix}cert_reqs": ssl.CERT_REQUIRED, "{prefix}ca_certs": "/path/of/ca.pem"'
    own = f'"{prefix}certfile": "/path/of/own.pem", "{prefix}keyfile": "/path/of/own.key"'
    return {
        "app": word_of(app),
        "use_ssl": f"{line} = {{{verified}}}",
        "use_ssl_client": f"{line} = {{{verified}, {own}}}",
        "master_name": setting(app, "broker_transport_options", {"master_name": "mymaster"}),
    }


def _broker_url(app: Celery, url: str) -> str:
    """The line of the setting that workers read."""
    conf: Any = app.conf
    line = setting(app, "broker_url" if conf.broker_read_url == conf.broker_url else "broker_read_url", url)
    several = isinstance(conf.broker_url, (list, tuple)) or ";" in str(conf.broker_url)
    return f"{line}  # with the others of the list" if several else line


CHECKS: Final[tuple[Check, ...]] = (Check("broker.reachable", "a connection to the broker", _reachable, vital=True),)
