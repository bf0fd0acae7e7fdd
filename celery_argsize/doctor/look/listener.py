"""Asks workers by Celery's remote control over one connection, and hears answers and heartbeats."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from kombu import Consumer, Producer
from kombu.utils.uuid import uuid

from celery_argsize.doctor.facts import Heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping


class _OnceProducer(Producer):  # type: ignore[misc, unused-ignore]
    """Publishes, or fails: remote control would have it try again for ever."""

    def publish(self, *args: Any, retry: bool = False, **options: Any) -> Any:
        del retry
        return super().publish(*args, **options)


class Listener:
    """A context manager for asking workers. It hears them only while ``listen`` runs."""

    def __init__(self, app: Any, connection: Any) -> None:
        self.replies: dict[str, dict[str, Any]] = defaultdict(dict)
        """Question → node → its latest answer."""
        self.twice: set[str] = set()
        """Names that more than one node has."""
        self.heartbeats: dict[str, list[Heartbeat]] = defaultdict(list)
        self._connection = connection
        self._channel = connection.default_channel
        self._mailbox = mailbox = app.control.mailbox(connection)
        self._tickets: dict[str, str] = {}
        self._answered: set[tuple[str, str]] = set()
        # events of workers, without those of tasks
        events = app.events.Receiver(connection, routing_key="worker.#", app=app)
        options: Any = {"no_ack": True, "on_decode_error": lambda *_: None}
        answers = Consumer(self._channel, [mailbox.reply_queue], accept=mailbox.accept, **options)
        answers.register_callback(self._on_reply)
        queues = [events.queue(self._channel)]
        heartbeats = Consumer(self._channel, queues, accept=events.accept, **options)
        heartbeats.register_callback(self._on_events)
        self.consumers = (answers, heartbeats)

    def __enter__(self) -> Listener:  # noqa: PYI034 - Self is new in Python 3.11
        for consumer in self.consumers:
            consumer.consume()
        return self

    def __exit__(self, *_: object) -> None:
        for consumer in self.consumers:
            consumer.cancel()
        # only on AMQP does a queue for replies go with its connection
        self._channel.after_reply_message_received(self._mailbox.reply_queue.name)

    def ask(self, questions: Mapping[str, Any], nodes: Iterable[str] | None = None, *, seconds: float) -> None:
        """Send each question, with its arguments, to *nodes* or to all; valid for *seconds*."""
        for question, arguments in questions.items():
            ticket = uuid()
            self._tickets[ticket] = question
            # what Control.broadcast does, on a connection of one's own
            self._mailbox._publish(  # noqa: SLF001
                question,
                dict(arguments),
                destination=None if nodes is None else list(nodes),
                reply_ticket=ticket,
                channel=self._channel,
                timeout=seconds,
                producer=_OnceProducer(self._channel, auto_declare=False),
            )

    def listen(self, until: Callable[[], bool], deadline: float) -> None:
        """Hear what comes until *until* is true, or until *deadline* of ``time.monotonic``."""
        while not until() and (left := deadline - time.monotonic()) > 0:
            try:
                self._connection.drain_events(timeout=min(left, 0.1))
            except TimeoutError:
                continue

    def answered(self, questions: Iterable[str], nodes: Collection[str]) -> bool:
        """Whether all *nodes* have answered all *questions*."""
        return all(self.replies[question].keys() >= {*nodes} for question in questions)

    def _on_reply(self, body: Any, message: Any) -> None:
        ticket = message.headers.get("ticket", "")
        question = self._tickets.get(ticket)
        if question is None or not isinstance(body, dict):
            return
        for node, answer in body.items():
            if (ticket, node) in self._answered:
                self.twice.add(node)
            self._answered.add((ticket, node))
            self.replies[question][node] = answer

    def _on_events(self, body: Any, _: Any) -> None:
        for event in body if isinstance(body, list) else [body]:
            if event.get("type") in {"worker-heartbeat", "worker-online"}:
                # not by Celery's Receiver, which adapts the time to the worker's time zone
                sent, every = event["timestamp"], event.get("freq") or 2
                beat = Heartbeat(time.time(), sent, every, event.get("active"))
                self.heartbeats[event["hostname"]].append(beat)
