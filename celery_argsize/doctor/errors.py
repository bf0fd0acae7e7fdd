"""What an error of a Redis or another broker means, and what to type.

The error's own text is never shown: a server may quote a password in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_argsize.doctor.app import setting, setting_path, word_of
from celery_argsize.doctor.redis_facts import FULL, NO_ANSWER, REPLICA, redis_cli

if TYPE_CHECKING:
    from celery_argsize.doctor.redis_facts import Role

#: The settings of each role: its URL, its TLS.
URLS: Final = {"messages": "broker_url", "results": "result_backend", "figures": "argsize_redis_url"}
TLS: Final = {"messages": "broker_use_ssl", "results": "redis_backend_use_ssl"}


class Cause(NamedTuple):
    """One cause of errors."""

    pattern: str
    """A pattern for the class and text of the error, or of one that led to it."""
    meaning: str
    fix: str = "{look}\n# with the right address, user and password:\n{url}"
    """Lines to type, with ``{names}`` that ``fix_for`` fills in."""


CAUSES: Final = (
    Cause("max number of clients", FULL, "celery -A {app} argsize doctor --apply-pool-shrink"),
    Cause(
        "WRONGPASS|NOAUTH|Authentication|ACCESS_REFUSED",
        "it wants another user name and password",
        "# of # / ? % @ : in a password, write %23 %2F %3F %25 %40 %3A:\n{url}\n{look}",
    ),
    Cause(
        "NOPERM|NoPermission",
        "its user lacks rights (NOPERM)",
        "{cli} ACL SETUSER NAME '~*' '&*' +@all -@dangerous +info",
    ),
    Cause("maxmemory|OOM", "its memory is full (maxmemory)", "{cli} CONFIG SET maxmemory SIZE"),
    Cause("read only replica", REPLICA, "{cli} INFO replication  # give its master_host\n{url}"),
    Cause(
        "unable to persist|MISCONF",
        "it cannot save, and refuses writes (MISCONF)",
        "df -h  # on its machine: is the disk full?",
    ),
    Cause("LOADING", "it is still loading its data", "{cli} INFO persistence  # how far it is"),
    Cause(
        "DB index is out of range",
        "it has no database of that number",
        "# give a number below its setting databases",
    ),
    Cause(
        "NOT_ALLOWED",
        "its vhost is not there, or not for this user",
        "rabbitmqctl add_vhost NAME\nrabbitmqctl set_permissions -p NAME USER '.*' '.*' '.*'",
    ),
    Cause(
        "name mismatch|address mismatch|certificate has expired",
        "its certificate has expired, or is for another host name",
    ),
    Cause("CERTIFICATE_VERIFY_FAILED", "its certificate is not signed by a CA known here", "{checked}"),
    Cause(
        "SSL|handshake operation timed out",
        "the TLS handshake failed: maybe it speaks no TLS",
        "# with its TLS port, or without TLS:\n{plain}",
    ),
    Cause("refused", "connection refused: nothing listens there"),
    Cause("not known|name resolution|nodename nor", "the host's name is not known"),
    Cause("No such file", "there is no such socket or certificate file"),
    Cause("timed out|Timeout|No route", NO_ANSWER),
    Cause(
        "reset by peer|Broken pipe|closed",
        "it closed the connection: that port may want TLS",
        "# with TLS:\n{secure}",
    ),
    Cause("No such transport", "kombu does not know its scheme"),
    Cause("ImportError", "a library is missing", "pip install 'celery[redis]'"),
    Cause("unknown command", "this server has no such command"),
    Cause("", ""),  # any other error
)


def why_not(exc: BaseException) -> str:
    """Why there is no connection, in words of our own."""
    chain = [exc]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    text = " ".join(f"{kind.__name__} {error}" for error in chain for kind in type(error).__mro__)
    meaning = next(row.meaning for row in CAUSES if re.search(row.pattern, text))
    return meaning or type(exc.__cause__ or exc).__name__


def fix_for(app: Any, url: str, why: str, role: Role = "messages") -> str:
    """Lines to type if *url* cannot be used because of *why*. *url* has no secrets."""
    scheme, _, place = url.partition("://")
    amqp, cli = "amqp" in scheme, redis_cli(url)
    look = f"{cli} ping" if cli else "# can it be reached?"
    user = "" if place.startswith("/") else ":PASSWORD@"
    if amqp:
        look = "rabbitmqctl status\nrabbitmqctl authenticate_user USER PASSWORD"
        user = "USER:PASSWORD@"

    def line(scheme: str) -> str:
        return url_line(app, role, f"{scheme}://{user}{place}")

    return next(row for row in CAUSES if row.meaning in why).fix.format(
        app=word_of(app) if app else "proj",
        cli=cli,
        look=look,
        url=line(scheme),
        plain=line("amqp" if amqp else "redis"),
        secure=line("amqps" if amqp else "rediss"),
        checked=checked_lines(app, role, amqp=amqp),
    )


def checked_lines(app: Any, role: Role, *, amqp: bool = False) -> str:
    """Lines that have the certificate checked."""
    if role == "figures":
        ca = setting(app, "argsize_redis_ssl_ca_certs", "/path/of/ca.pem")
        return f"{setting(app, 'argsize_redis_ssl_cert_reqs', 'required')}\n{ca}"
    ssl = "" if amqp else "ssl_"
    options = f'{{"{ssl}cert_reqs": ssl.CERT_REQUIRED, "{ssl}ca_certs": "/path/of/ca.pem"}}'
    return f"import ssl\n{setting_path(app, TLS[role])} = {options}"


def url_line(app: Any, role: Role, url: str) -> str:
    """The line that sets the URL of *role*."""
    conf: Any = app.conf if app and role == "messages" else {}
    brokers, reading = conf.get("broker_url"), conf.get("broker_read_url")
    line = setting(app, URLS[role] if reading in (None, brokers) else "broker_read_url", url)
    several = isinstance(brokers, (list, tuple)) or ";" in str(brokers)
    return f"{line}  # with the others of the list" if several else line
