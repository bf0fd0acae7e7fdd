"""The doctor's own connection to the broker, as kombu's waits for ever; and what AMQP says of its queues."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from redis import RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_argsize.doctor.app import transport_options
from celery_argsize.doctor.redis_facts import Counted
from celery_argsize.redis_url import safe_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from celery import Celery

#: AMQP's code for a queue that does not exist.
NOT_FOUND: Final = 404


def broker_url(app: Celery) -> str:
    """Where the workers read from, without secrets."""
    try:
        with app.connection_for_read() as connection:  # not connected
            return safe_url(connection.as_uri())
    except Exception:  # noqa: BLE001 - such as a scheme that kombu does not know
        return safe_url(app.conf.broker_read_url or app.conf.broker_url)


def port_of(connection: Any) -> int:
    """The broker's port; 0 where it has none."""
    return int(connection.port or connection.transport.default_port or 0)


@contextmanager
def connection_to(app: Celery, seconds: float) -> Iterator[Any]:
    """A connection to the broker of *app*; of a failover list, to the first that answers.

    Raises:
        Exception: whatever kombu raises, within a small multiple of *seconds*.
    """
    with app.connection_for_read() as unconnected:
        redis = unconnected.transport.driver_type == "redis"
    options: dict[str, Any] = {}
    if redis:
        times = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        # at once, and once only, also where kombu connects again by itself
        options = {**times, **dict.fromkeys(("interval_start", "interval_step", "interval_max"), 0)}
        options |= {"max_retries": 1, "retry_on_timeout": False}
        options["polling_interval"] = 1  # seconds that closing may take
        given = transport_options(app).get("sentinel_kwargs") or {}
        options["sentinel_kwargs"] = {**given, **times, "retry": Retry(NoBackoff(), 0)}
    connection: Any = app.connection_for_read(connect_timeout=seconds, transport_options=options)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=seconds)
        yield connection
    finally:
        with suppress(Exception):  # kombu may trip over what comes while it closes
            connection.release()


def count_queues(
    connection: Any, names: Iterable[str], until: float = float("inf")
) -> tuple[dict[str, Counted], dict[str, str]]:
    """On AMQP: each queue of *names* that exists → its counts; and each not counted *until* then → why."""
    counted: dict[str, Counted] = {}
    left: dict[str, str] = {}
    if connection.transport.driver_type != "amqp":
        return counted, left
    channel = connection.channel()
    for name in names:
        if time.monotonic() > until:
            left[name] = "the broker was too slow to count all in time; --timeout gives it longer"
        else:
            try:
                declared = channel.queue_declare(queue=name, passive=True)
                counted[name] = Counted(declared.message_count, declared.consumer_count)
            except connection.channel_errors as exc:  # the channel is closed, and opened again
                if getattr(exc, "reply_code", 0) != NOT_FOUND:
                    left[name] = f"the broker does not let it be counted ({type(exc).__name__})"
    channel.close()
    return counted, left


def ends_at(connection: Any) -> dict[str, bool]:
    """On Redis: the client's end of each connection → whether it is at the database of *connection*."""
    lines: list[dict[str, str]] = []
    if connection.transport.driver_type == "redis":
        client = connection.default_channel.client
        database = str(client.connection_pool.connection_kwargs.get("db") or 0)
        with suppress(RedisError):  # this user may not see it
            lines = client.client_list()
    return {line["addr"]: line.get("db") == database for line in lines if "addr" in line}
