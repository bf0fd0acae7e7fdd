"""What an error of a Redis or another broker means, and what to type: one table for both.

An error's own words are never shown: a server may quote a password in them.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

from celery_argsize.doctor.app import setting, setting_path, word_of
from celery_argsize.doctor.redis_facts import FULL, NO_ANSWER, REPLICA, redis_cli

if TYPE_CHECKING:
    from celery_argsize.doctor.redis_facts import Role

#: The setting with the URL of each use, and the one with its TLS.
URLS: Final = {"messages": "broker_url", "results": "result_backend", "figures": "argsize_redis_url"}
TLS: Final = {"messages": "broker_use_ssl", "results": "redis_backend_use_ssl"}


class Cause(NamedTuple):
    """One cause of errors."""

    words: str
    """A pattern for the class and the text of the error, or of one that led to it."""
    meaning: str
    fix: str = "{look}\n# with the right address, user and password:\n{url}"
    """Lines to type, with ``{names}`` that ``fix_for`` fills in."""


CAUSES: Final = (
    Cause(
        "max number of clients",
        FULL,
        "celery -A {app} argsize doctor --apply-pool-shrink  # as soon as one client is gone\n"
        "# or let it take more: maxclients in its redis.conf, or a larger plan",
    ),
    Cause(
        "WRONGPASS|invalid (username-)?password|any password|ACCESS_REFUSED|NOAUTH|Authentication",
        "it wants another user name and password",
        "# of # / ? % @ : in a password, write %23 %2F %3F %25 %40 %3A:\n{url}\n{login}",
    ),
    Cause(
        "NOPERM|NoPermission",
        "its user may not do what is needed (NOPERM)",
        "{cli} ACL SETUSER NAME '~*' '&*' +@all -@dangerous +info",
    ),
    Cause(
        "maxmemory|OOM",
        "its memory is full (maxmemory): it takes no more messages",
        "# see redis.queues and redis.results for what is in it\n"
        "{cli} CONFIG SET maxmemory SIZE  # more than now, such as 512mb",
    ),
    Cause("read only replica", REPLICA, "{cli} INFO replication  # give the URL of its master_host\n{url}"),
    Cause(
        "unable to persist|MISCONF",
        "it takes no writes, as it cannot save to its disk (MISCONF)",
        "{cli} INFO persistence\ndf -h  # on its machine: mostly the disk is full",
    ),
    Cause("LOADING", "it is still loading its data", "{cli} INFO persistence  # how far it is"),
    Cause(
        "DB index is out of range",
        "it has no database of that number",
        "# a number below its setting databases (16 by default):\n{first}",
    ),
    Cause(
        "NOT_ALLOWED",
        "it has no such vhost, or this user may not use it (NOT_ALLOWED)",
        "rabbitmqctl add_vhost {vhost}\nrabbitmqctl set_permissions -p {vhost} USER '.*' '.*' '.*'",
    ),
    Cause("name mismatch|address mismatch", "its certificate is for another host name"),
    Cause("certificate has expired", "its certificate has expired", "# renew it, on its machine"),
    Cause("CERTIFICATE_VERIFY_FAILED", "its certificate is not signed by a CA known here", "{checked}"),
    Cause(
        "CERTIFICATE_REQUIRED|EOF occurred",
        "it ended the TLS handshake: it may want a client certificate",
        "# with the files of a client certificate as well:\n{checked}",
    ),
    Cause(
        "SSL|handshake operation timed out",
        "the TLS handshake failed, as where a port speaks no TLS",
        "# with the port at which it speaks TLS, or without TLS:\n{plain}",
    ),
    Cause("refused", "connection refused: nothing listens there"),
    Cause("not known|name resolution|nodename nor", "the host's name is not known"),
    Cause("No such file", "there is no such socket, or file of a certificate"),
    Cause(
        "MasterNotFound|which primary",
        "its sentinels know no primary of this name, or the name is missing",
        "redis-cli -h SENTINEL -p 26379 SENTINEL masters  # for the name\n{primary}",
    ),
    Cause("timed out|Timeout|No route", NO_ANSWER),
    Cause(
        "reset by peer|Broken pipe|closed",
        "it closed the connection: that port may want TLS, or something else listens there",
        "# with TLS:\n{secure}",
    ),
    Cause("No such transport", "kombu does not know the scheme of this URL"),
    Cause("ImportError", "a library is missing", "pip install 'celery[redis]'"),
    Cause("unknown command", "this server has no such command"),
    Cause("", ""),
)


def why_not(exc: BaseException) -> str:
    """Why there is no connection, in words of our own."""
    chain: list[BaseException] = []
    cause: BaseException | None = exc
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    text = " ".join(f"{kind.__name__} {error}" for error in chain for kind in type(error).__mro__)
    meaning = next(row.meaning for row in CAUSES if re.search(row.words, text))
    return meaning or type(exc.__cause__ or exc).__name__


def fix_for(app: Any, url: str, why: str, role: Role = "messages") -> str:
    """Lines to type where *url*, which has no secrets in it, cannot be used because of *why*."""
    scheme, _, place = url.partition("://")
    kind = "amqp" if "amqp" in scheme else "redis" if redis_cli(url) else scheme
    secret = "USER:PASSWORD@" if kind == "amqp" else "" if place.startswith("/") else ":PASSWORD@"
    host, cli = place.partition("/")[0], redis_cli(url)
    secure = "amqps" if kind == "amqp" else "rediss"
    look = {"amqp": "rabbitmqctl status", "redis": f"{cli} ping"}.get(kind, "# see that it can be reached")
    return next(row for row in CAUSES if row.meaning in why).fix.format(
        look=look,
        login="rabbitmqctl authenticate_user USER PASSWORD" if kind == "amqp" else look,
        app=word_of(app) if app else "proj",
        cli=cli,
        url=url_line(app, role, f"{scheme}://{secret}{place}"),
        first=url_line(app, role, f"{scheme}://{secret}{host}/0"),
        plain=url_line(app, role, f"{kind}://{secret}{place}"),
        secure=url_line(app, role, f"{secure}://{secret}{place}"),
        vhost=shlex.quote(unquote(place.partition("/")[2]) or "/"),
        checked=checked_lines(app, role, amqp=kind == "amqp"),
        primary=setting(app, "broker_transport_options", {"master_name": "mymaster"}),
    )


def checked_lines(app: Any, role: Role, *, amqp: bool = False) -> str:
    """Lines that have the certificate checked."""
    if role == "figures":
        ca = setting(app, "argsize_redis_ssl_ca_certs", "/path/of/ca.pem")
        return f"{setting(app, 'argsize_redis_ssl_cert_reqs', 'required')}\n{ca}  # for a CA of your own"
    ssl = "" if amqp else "ssl_"
    options = f'{{"{ssl}cert_reqs": ssl.CERT_REQUIRED, "{ssl}ca_certs": "/path/of/ca.pem"}}'
    return f"import ssl\n{setting_path(app, TLS[role])} = {options}  # or no ca_certs: those of this system"


def url_line(app: Any, role: Role, url: str) -> str:
    """The line that gives *role* the *url*."""
    conf: Any = app.conf if app else {}
    brokers = conf.get("broker_url") if role == "messages" else None
    read = role == "messages" and conf.get("broker_read_url") not in (None, brokers)
    several = isinstance(brokers, (list, tuple)) or ";" in str(brokers)
    line = setting(app, "broker_read_url" if read else URLS[role], url)
    return f"{line}  # with the others of the list" if several else line
