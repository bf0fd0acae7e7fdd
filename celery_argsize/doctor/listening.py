"""Asking all workers at once by Celery's remote control, and hearing their replies and heartbeats, on one connection.

The questions and replies are those of ``celery inspect``. Only names, numbers and times are kept of them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from kombu import Consumer, Producer
from kombu.utils.uuid import uuid

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["Heartbeat", "Listener", "Reply"]


class Reply(NamedTuple):
    """What one worker answered to one question."""

    time: float
    """When it came: ``time.monotonic()``."""
    said: Any


class Heartbeat(NamedTuple):
    """One worker-heartbeat (or worker-online) event."""

    received: float
    """Seconds since the epoch, by this machine's clock."""
    sent: float
    """The same, by the clock of the worker's machine."""
    every: float
    """Seconds between two of them, as the worker says."""


class _OnceProducer(Producer):  # type: ignore[misc, unused-ignore]
    """Publishes, or fails: remote control would have it try again for ever."""

    def publish(self, *args: Any, retry: bool = False, **options: Any) -> Any:
        del retry
        return super().publish(*args, **options)


class Listener:
    """What comes back from the workers, as long as ``listen`` runs."""

    def __init__(self, app: Any, connection: Any) -> None:
        self.replies: dict[str, dict[str, Reply]] = defaultdict(dict)
        """Question → node → its latest reply."""
        self.twice: set[str] = set()
        """Nodes of whose name there is more than one."""
        self.heartbeats: dict[str, list[Heartbeat]] = defaultdict(list)
        self._connection = connection
        self._channel = connection.default_channel
        self._mailbox = app.control.mailbox(connection)
        self._tickets: dict[str, str] = {}
        self._answered: set[tuple[str, str]] = set()
        # of workers, and not of each of their tasks
        events = app.events.Receiver(connection, routing_key="worker.#", app=app)
        self.consumers = (
            Consumer(
                self._channel,
                [self._mailbox.reply_queue],
                accept=self._mailbox.accept,
                no_ack=True,
                callbacks=[self._on_reply],
                on_decode_error=_drop,
            ),
            Consumer(
                self._channel,
                [events.queue(self._channel)],
                accept=events.accept,
                no_ack=True,
                callbacks=[self._on_events],
                on_decode_error=_drop,
            ),
        )

    def __enter__(self) -> Listener:  # noqa: PYI034 - Self is new in Python 3.11
        for consumer in self.consumers:
            consumer.consume()
        return self

    def __exit__(self, *_: object) -> None:
        for consumer in self.consumers:
            consumer.cancel()
        # a queue for replies goes with its connection only on AMQP
        self._channel.after_reply_message_received(self._mailbox.reply_queue.name)

    def ask(
        self, questions: Mapping[str, Mapping[str, Any]], nodes: Collection[str] | None = None, *, seconds: float
    ) -> None:
        """Send each of *questions*, with its arguments, to *nodes* or to all. Who gets it after *seconds* drops it."""
        producer = _OnceProducer(self._channel, auto_declare=False)
        for question, arguments in questions.items():
            ticket = uuid()
            self._tickets[ticket] = question
            self._mailbox._publish(  # noqa: SLF001 - what Control.broadcast does, on a connection of one's own
                question,
                dict(arguments),
                destination=None if nodes is None else list(nodes),
                reply_ticket=ticket,
                channel=self._channel,
                timeout=seconds,
                producer=producer,
            )

    def listen(self, until: Callable[[], bool], deadline: float) -> None:
        """Hear what comes until that is so, or until *deadline* (of ``time.monotonic``)."""
        while not until() and (left := deadline - time.monotonic()) > 0:
            try:
                self._connection.drain_events(timeout=min(left, 0.1))
            except TimeoutError:
                continue

    def answered(self, questions: Collection[str], nodes: Collection[str]) -> bool:
        """Whether all *nodes* have answered all *questions*."""
        return all(set(nodes) <= self.replies[question].keys() for question in questions)

    def _on_reply(self, body: Any, message: Any) -> None:
        ticket = message.headers.get("ticket", "")
        question = self._tickets.get(ticket)
        if question is None or not isinstance(body, dict):
            return
        for node, said in body.items():
            if (ticket, node) in self._answered:
                self.twice.add(node)
            self._answered.add((ticket, node))
            self.replies[question][node] = Reply(time.monotonic(), said)

    def _on_events(self, body: Any, _: Any) -> None:
        for event in body if isinstance(body, list) else [body]:
            sent = event.get("timestamp") if isinstance(event, dict) else None
            if isinstance(sent, (int, float)) and event.get("type") in {"worker-heartbeat", "worker-online"}:
                # not by Celery's Receiver: that takes the time zones off a time that has none
                beat = Heartbeat(time.time(), float(sent), float(event.get("freq") or 2))
                self.heartbeats[str(event.get("hostname", ""))].append(beat)


def _drop(*_: object) -> None:
    """What cannot be read is none of ours."""
