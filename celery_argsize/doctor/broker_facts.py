"""One connection to the broker for the doctor's own use, with an end to every wait; and what AMQP says of its queues.

kombu's Redis transport waits for ever by default, and Celery's own remote control publishes through the app's pool,
which tries again for ever: neither is used here. Nothing is declared that stays.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_argsize.redis_url import safe_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from celery import Celery

__all__ = ["Counted", "broker_url", "connection_to", "count_queues", "why_not"]

#: What a Redis or a RabbitMQ says, and what that means. Foreign words are not passed on: they may quote a password.
_MEANINGS: Final = (
    ("max number of clients", "the broker has no room for one more client (max number of clients reached)"),
    ("WRONGPASS", "the broker does not take this user name and password"),
    ("invalid username-password", "the broker does not take this user name and password"),
    ("invalid password", "the broker does not take this user name and password"),
    ("ACCESS_REFUSED", "the broker does not take this user name and password"),
    ("NOAUTH", "the broker wants a password"),
    ("Authentication required", "the broker wants a password"),
    ("NOPERM", "this user may not do what workers do (NOPERM)"),
    ("NoPermission", "this user may not do what workers do (NOPERM)"),
    ("maxmemory", "its memory is full (maxmemory): it takes no more messages"),
    ("read only replica", "it is a replica: nothing can be written there"),
    ("unable to persist", "it takes no writes, as it cannot save to its disk (MISCONF)"),
    ("No such transport", "kombu does not know the scheme of this broker URL"),
    ("LOADING", "the broker is still loading its data"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted (CERTIFICATE_VERIFY_FAILED)"),
    ("SSL", "the TLS handshake failed: one side speaks TLS and the other does not, or the certificate is wrong"),
    ("refused", "connection refused: nothing listens there"),
    ("Name or service not known", "the host's name is not known"),
    ("name resolution", "the host's name could not be looked up"),
    ("nodename nor servname", "the host's name is not known"),
    ("No such file", "there is no such socket or folder"),
    ("MasterNotFound", "no sentinel knows the primary of this name, or none answers"),
    ("No route to host", "there is no route to the host"),
    ("timed out", "no answer in time"),
    ("Timeout", "no answer in time"),
    ("closed", "the broker closed the connection"),
)


class Counted(NamedTuple):
    """What an AMQP broker says of a queue."""

    messages: int
    consumers: int


def broker_url(app: Celery) -> str:
    """Where the workers read from, without secrets."""
    try:
        with app.connection_for_read() as connection:  # not connected: only for what it makes of all settings
            return safe_url(connection.as_uri())
    except Exception:  # noqa: BLE001 - such as a scheme that kombu does not know
        return safe_url(app.conf.broker_read_url or app.conf.broker_url)


@contextmanager
def connection_to(app: Celery, seconds: float) -> Iterator[Any]:
    """A connection to the broker of *app*, made now; no wait on it takes longer than *seconds*, where it can be said.

    Raises what kombu raises, within a small multiple of *seconds*.
    """
    options: dict[str, Any] = {}
    if _is_redis(app):
        options = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry_on_timeout": False}
        # at once, and once only, also where kombu connects again by itself
        options |= {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
        options["polling_interval"] = 1  # seconds that closing may take
        # the sentinels are asked by clients of their own, which would try again for long
        once = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": Retry(NoBackoff(), 0)}
        options["sentinel_kwargs"] = {**(app.conf.broker_transport_options.get("sentinel_kwargs") or {}), **once}
    connection: Any = app.connection_for_read(connect_timeout=seconds, transport_options=options)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=seconds)
        yield connection
    finally:
        connection.release()


def _is_redis(app: Celery) -> bool:
    with app.connection_for_read() as connection:
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


def count_queues(connection: Any, names: Iterable[str]) -> Mapping[str, Counted]:
    """On AMQP, what waits in each queue of *names* that exists, and how many consume it; elsewhere nothing.

    By passive declaration: it makes nothing.
    """
    if connection.transport.driver_type != "amqp":
        return {}
    found = {}
    for name in names:
        # one channel for each: the broker closes it where there is no such queue
        channel = connection.channel()
        try:
            declared = channel.queue_declare(queue=name, passive=True)
        except connection.channel_errors:
            continue
        found[name] = Counted(declared.message_count, declared.consumer_count)
        channel.close()
    return found
