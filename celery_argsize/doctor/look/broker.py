"""Connects to the broker, counts its queues, and asks live workers.

The app's own connections would wait for ever for a broker that is away.
"""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from kombu import Consumer, Producer
from kombu.utils.uuid import uuid
from redis import RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_argsize.doctor.app import broker_kind, transport_options
from celery_argsize.doctor.facts import MORE_TIME, Heartbeat
from celery_argsize.doctor.redis_facts import QueueCount
from celery_argsize.redis_url import safe_url

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from celery import Celery

#: Why a queue was not counted.
TOO_SLOW: Final = f"the broker was too slow to count it in time; {MORE_TIME}"


def broker_url(app: Celery) -> str:
    """The URL that workers read from, without secrets."""
    try:
        with app.connection_for_read() as connection:  # this does not connect yet
            return safe_url(connection.as_uri())
    except Exception:  # noqa: BLE001 - such as a scheme that kombu does not know
        return safe_url(app.conf.broker_read_url)


@contextmanager
def connection_to(app: Celery, seconds: float) -> Iterator[Any]:
    """A connection to the broker; of a failover list, to the first one that answers.

    Raises whatever kombu raises, after a small multiple of *seconds* at most.
    """
    options: dict[str, Any] = {}
    if broker_kind(app) == "redis":
        timeouts = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        sentinels = transport_options(app).get("sentinel_kwargs") or {}
        options = {
            # also when kombu reconnects: one attempt, no pause
            **dict.fromkeys(("interval_start", "interval_step", "interval_max"), 0),
            **timeouts,
            "max_retries": 1,
            "retry_on_timeout": False,
            "polling_interval": 1,  # seconds; closing waits for the end of a poll
            "sentinel_kwargs": {**sentinels, **timeouts, "retry": Retry(NoBackoff(), 0)},
        }
    connection: Any = app.connection_for_read(connect_timeout=seconds, transport_options=options)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=seconds)
        yield connection
    finally:
        with suppress(Exception):  # a message may arrive meanwhile
            connection.release()


def count_queues(
    connection: Any, names: Iterable[str], deadline: float
) -> tuple[dict[str, QueueCount], dict[str, str]]:
    """Count queues of an AMQP broker until *deadline* of ``time.monotonic``.

    Returns queue → its counts, and uncounted queue → why. A
    missing queue is in neither.
    """
    counted: dict[str, QueueCount] = {}
    uncounted = dict.fromkeys(names, TOO_SLOW)
    channel = connection.channel()
    for name in names:
        if time.monotonic() > deadline:
            break
        del uncounted[name]
        try:
            queue = channel.queue_declare(queue=name, passive=True)
            counted[name] = QueueCount(queue.message_count, queue.consumer_count)
        except connection.channel_errors as exc:  # py-amqp opens the channel again
            if exc.reply_code != 404:  # noqa: PLR2004 - no such queue
                uncounted[name] = f"the broker does not let it be counted ({type(exc).__name__})"
    channel.close()
    return counted, uncounted


def same_database(connection: Any) -> dict[str, bool]:
    """On Redis: address of each client → whether it uses the database of *connection*."""
    client = connection.default_channel.client
    database = str(client.connection_pool.connection_kwargs.get("db") or 0)
    with suppress(RedisError):  # this user may not list clients
        return {line["addr"]: line["db"] == database for line in client.client_list()}
    return {}


class _OnceProducer(Producer):  # type: ignore[misc, unused-ignore]
    """Tries once to publish. kombu's mailbox asks it to try for ever (``retry=True``)."""

    def publish(self, *args: Any, **options: Any) -> Any:
        return super().publish(*args, **{**options, "retry": False})


class Listener:
    """A context manager that asks workers. It receives messages only in ``listen``."""

    def __init__(self, app: Any, connection: Any) -> None:
        self.replies: dict[str, dict[str, Any]] = defaultdict(dict)
        """Question → worker → its latest reply."""
        self.shared_names: set[str] = set()
        """Names that more than one worker has."""
        self.heartbeats: dict[str, list[Heartbeat]] = defaultdict(list)
        """Worker → its heartbeats."""
        self._connection = connection
        self._channel = connection.default_channel
        self._mailbox = mailbox = app.control.mailbox(connection)
        self._questions: dict[str, str] = {}  # ticket (id of a request) → question
        self._answered: set[tuple[str, str]] = set()  # ticket, worker
        # "worker.#": events of workers, and none of tasks
        events = app.events.Receiver(connection, routing_key="worker.#", app=app)
        options: Any = {"no_ack": True, "on_decode_error": lambda *_: None}
        replies = Consumer(self._channel, [mailbox.reply_queue], accept=mailbox.accept, **options)
        replies.register_callback(self._on_reply)
        beats = Consumer(self._channel, [events.queue(self._channel)], accept=events.accept, **options)
        beats.register_callback(self._on_events)
        self.consumers = (replies, beats)

    def __enter__(self) -> Listener:  # noqa: PYI034 - Self is new in Python 3.11
        for consumer in self.consumers:
            consumer.consume()
        return self

    def __exit__(self, *_: object) -> None:
        for consumer in self.consumers:
            consumer.cancel()
        # deletes the queue for replies; only AMQP does so by itself
        self._channel.after_reply_message_received(self._mailbox.reply_queue.name)

    def ask(self, questions: Mapping[str, Any], workers: list[str] | None = None, *, seconds: float) -> None:
        """Send each question, with its arguments, to *workers* or to all. Valid for *seconds*."""
        for question, arguments in questions.items():
            ticket = uuid()
            self._questions[ticket] = question
            # as Control.broadcast, but on the doctor's connection
            self._mailbox._publish(  # noqa: SLF001
                question,
                dict(arguments),
                destination=workers,
                reply_ticket=ticket,
                channel=self._channel,
                timeout=seconds,
                producer=_OnceProducer(self._channel, auto_declare=False),
            )

    def listen(self, done: Callable[[], bool], deadline: float) -> None:
        """Receive messages until *done* gives true, or *deadline* of ``time.monotonic``."""
        while not done() and (left := deadline - time.monotonic()) > 0:
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=min(left, 0.1))

    def answered(self, questions: Iterable[str], workers: Collection[str]) -> bool:
        """Whether all *workers* have answered all *questions*."""
        return all(self.replies[question].keys() >= {*workers} for question in questions)

    def _on_reply(self, body: Any, message: Any) -> None:
        ticket = message.headers.get("ticket")
        question = self._questions.get(ticket)
        if question is None or not isinstance(body, dict):
            return
        for worker, reply in body.items():
            if (ticket, worker) in self._answered:
                self.shared_names.add(worker)
            self._answered.add((ticket, worker))
            self.replies[question][worker] = reply

    def _on_events(self, body: Any, _: Any) -> None:
        for event in body if isinstance(body, list) else [body]:
            if event.get("type") in {"worker-heartbeat", "worker-online"}:
                beat = Heartbeat(time.time(), event.get("freq") or 2, event.get("active"))
                self.heartbeats[event["hostname"]].append(beat)
