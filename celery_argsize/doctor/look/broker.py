"""One connection to the broker for the doctor's own use, with an end to every wait; and what AMQP says of its queues.

kombu's Redis transport waits for ever by default, and Celery's own remote control publishes through the app's pool,
which tries again for ever: neither is used here. Nothing is declared that stays.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from redis import RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_argsize.doctor.redis_facts import NO_ANSWER, Counted
from celery_argsize.redis_url import safe_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from celery import Celery

#: Queues that are counted at most.
QUEUES_AT_MOST: Final = 2000

#: What a Redis or a RabbitMQ says, and what that means. Foreign words are not passed on: they may quote a password.
_MEANINGS: Final = (
    ("max number of clients", "the broker has no room for one more client (max number of clients reached)"),
    ("WRONGPASS", "the broker does not take this user name and password"),
    ("invalid username-password", "the broker does not take this user name and password"),
    ("invalid password", "the broker does not take this user name and password"),
    ("ACCESS_REFUSED", "the broker does not take this user name and password"),
    ("NOT_ALLOWED", "the broker has no such vhost, or this user may not use it (NOT_ALLOWED)"),
    ("DB index is out of range", "it has no database of that number"),
    ("NOAUTH", "the broker wants a password"),
    ("Authentication required", "the broker wants a password"),
    ("NOPERM", "this user may not do what workers do (NOPERM)"),
    ("NoPermission", "this user may not do what workers do (NOPERM)"),
    ("maxmemory", "its memory is full (maxmemory): it takes no more messages"),
    ("read only replica", "it is a replica: nothing can be written there"),
    ("unable to persist", "it takes no writes, as it cannot save to its disk (MISCONF)"),
    ("No such transport", "kombu does not know the scheme of this broker URL"),
    ("LOADING", "the broker is still loading its data"),
    ("ostname mismatch", "its certificate is for another host name"),
    ("IP address mismatch", "its certificate is for another host name"),
    ("certificate has expired", "its certificate has expired"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted (CERTIFICATE_VERIFY_FAILED)"),
    ("CERTIFICATE_REQUIRED", "it wants a client certificate"),
    ("EOF occurred", "it ended the TLS handshake: it may want a client certificate"),
    ("WRONG_VERSION_NUMBER", "that port speaks no TLS"),
    ("RECORD_LAYER_FAILURE", "that port speaks no TLS"),
    ("handshake operation timed out", "no answer to the TLS handshake: that port speaks no TLS, or is far away"),
    ("SSL", "the TLS handshake failed: one side speaks TLS and the other does not, or the certificate is wrong"),
    ("refused", "connection refused: nothing listens there"),
    ("Name or service not known", "the host's name is not known"),
    ("name resolution", "the host's name could not be looked up"),
    ("nodename nor servname", "the host's name is not known"),
    ("No such file", "there is no such socket, folder or certificate file"),
    ("MasterNotFound", "no sentinel knows the primary of this name, or none answers"),
    ("No route to host", "there is no route to the host"),
    ("timed out", NO_ANSWER),
    ("Timeout", NO_ANSWER),
    ("reset by peer", "the broker closed the connection: that port may want TLS, or is no broker's"),
    ("Broken pipe", "the broker closed the connection: that port may want TLS, or is no broker's"),
    ("closed", "the broker closed the connection"),
)


#: AMQP's code for a queue that does not exist.
_NOT_FOUND: Final = 404


def broker_url(app: Celery) -> str:
    """Where the workers read from, without secrets."""
    try:
        with app.connection_for_read() as connection:  # not connected: only for what it makes of all settings
            return safe_url(connection.as_uri())
    except Exception:  # noqa: BLE001 - such as a scheme that kombu does not know
        return safe_url(app.conf.broker_read_url or app.conf.broker_url)


def brokers_of(app: Celery) -> list[str | None]:
    """The URLs of a failover list, with their secrets, for ``connection_to``; ``[None]`` where there is one broker.

    Sentinels are one: each of them tells of the same Redis.
    """
    with app.connection_for_read() as connection:
        alternates = [str(url) for url in connection.alt]
        # kombu asks all sentinels itself, and needs all of them for that
        return [*alternates] if len(alternates) > 1 and "sentinel" not in alternates[0] else [None]


def port_of(connection: Any) -> int:
    """The broker's, where it has one."""
    return int(connection.port or connection.transport.default_port or 0)


@contextmanager
def connection_to(app: Celery, seconds: float, url: str | None = None) -> Iterator[Any]:
    """A connection to the broker of *app* (or to *url*, one of ``brokers_of``), made now.

    No wait on it takes longer than *seconds*, where it can be said. Raises what kombu raises, within a small multiple
    of *seconds*.
    """
    options: dict[str, Any] = {}
    if _is_redis(app, url):
        options = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry_on_timeout": False}
        # at once, and once only, also where kombu connects again by itself
        options |= {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
        options["polling_interval"] = 1  # seconds that closing may take
        # the sentinels are asked by clients of their own, which would try again for long
        once = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": Retry(NoBackoff(), 0)}
        options["sentinel_kwargs"] = {**(_options(app).get("sentinel_kwargs") or {}), **once}
    connection: Any = app.connection_for_read(url, connect_timeout=seconds, transport_options=options)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=seconds)
        yield connection
    finally:
        with suppress(Exception):  # kombu may trip over what comes while it closes
            connection.release()


def _options(app: Celery) -> dict[str, Any]:
    """Those of the transport, as Celery itself reads them."""
    return dict(app.conf.broker_transport_options or {})


def _is_redis(app: Celery, url: str | None) -> bool:
    with app.connection_for_read(url) as connection:
        return bool(connection.transport.driver_type == "redis")


def why_not(exc: BaseException) -> str:
    """In words of our own, why there is no connection."""
    if isinstance(exc, ImportError):
        return f"a library is missing: {exc}"
    chain: list[BaseException] = []
    following: BaseException | None = exc
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    said = " ".join(f"{type(one).__name__} {one}" for one in chain)
    return next((meaning for words, meaning in _MEANINGS if words in said), type(exc.__cause__ or exc).__name__)


def count_queues(
    connection: Any, names: Iterable[str], until: float = float("inf")
) -> tuple[dict[str, Counted], dict[str, str]]:
    """On AMQP, what waits in each queue of *names* that exists, and how many consume it; and queue → why not counted.

    By passive declaration: it makes nothing. Elsewhere nothing. *until*: of ``time.monotonic``; whatever cannot be
    counted by then is left.
    """
    found: dict[str, Counted] = {}
    left: dict[str, str] = {}
    if connection.transport.driver_type != "amqp":
        return found, left
    channel = connection.channel()
    for number, name in enumerate(names):
        if number >= QUEUES_AT_MOST:
            left[name] = f"only {QUEUES_AT_MOST:,} queues are counted"
        elif time.monotonic() > until:
            left[name] = "the broker was too slow to count all in time; --timeout gives it longer"
        else:
            try:
                declared = channel.queue_declare(queue=name, passive=True)
                found[name] = Counted(declared.message_count, declared.consumer_count)
            except connection.channel_errors as exc:  # the broker closes the channel, and it is opened again
                if getattr(exc, "reply_code", 0) != _NOT_FOUND:
                    left[name] = f"the broker does not let it be counted ({type(exc).__name__})"
    channel.close()
    return found, left


def ends_at(connection: Any) -> dict[str, bool]:
    """On Redis: the client's end of each connection to it → whether that is in the database of *connection*.

    Elsewhere nothing, nor where this user may not see it.
    """
    if connection.transport.driver_type != "redis":
        return {}
    client = connection.default_channel.client
    database = int(client.connection_pool.connection_kwargs.get("db") or 0)
    try:
        listed = client.client_list()
    except RedisError:
        return {}
    return {one["addr"]: int(one.get("db", -1)) == database for one in listed if "addr" in one}
