"""What the live workers say, by Celery's own remote control and by their heartbeats; nothing is judged here.

How they are asked is in ``listening``, the connection in ``broker_facts``. Of arguments nothing is kept.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kombu import Consumer, Producer
from kombu.exceptions import OperationalError
from kombu.utils.uuid import uuid

from celery_argsize.doctor.app import known_queues, number, routed_queues, shortest_interval
from celery_argsize.doctor.facts import Heartbeat, Node, Unavailable, WorkerFacts, raised_at
from celery_argsize.doctor.look.broker import (
    broker_url,
    brokers_of,
    connection_to,
    count_queues,
    ends_at,
    port_of,
    why_not,
)
from celery_argsize.doctor.look.host import local_processes
from celery_argsize.doctor.redis_facts import NO_ANSWER
from celery_argsize.redis_url import safe_url

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from celery import Celery

    from celery_argsize.doctor.facts import Scope

#: Seconds in which a broker must take a connection, or answer a command, to be no further away than it may be.
BROKER_SECONDS: Final = 2.0
#: Seconds for counting the queues of an AMQP broker.
COUNT_SECONDS: Final = 3.0
#: Seconds to listen at most: two heartbeats fit in, each 2 s from the next by default (celery.worker.heartbeat).
LISTEN_SECONDS: Final = 5.0
#: How many times as long as connecting took: an answer takes several round trips as well.
SLOW_TIMES: Final = 4
#: Seconds to wait for the first answers: what ``celery inspect`` waits.
ANSWER_SECONDS: Final = 1.0
#: Seconds between two counts of runs, where something is due each 2 s or more often.
SAMPLE_SECONDS: Final = 4.0
OFTEN: Final = 2.0
#: Tasks with an ETA that a node may hold to be asked for them: they come with their arguments.
ETA_TASKS_AT_MOST: Final = 100
#: The same for running tasks: characters of arguments that the replies of one node may have.
ACTIVE_CHARACTERS_AT_MOST: Final = 1 << 20

_QUESTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ping": {},
    "stats": {},
    "active_queues": {},
    "registered": {"taskinfoitems": ["_"]},  # only the names: nothing is an attribute that begins so
    "argsize": {},
}


def look_at_workers(where: Scope) -> WorkerFacts:
    """Ask all workers of the app, whatever its broker.

    Raises:
        Unavailable: no app was given.
    """
    if where.app is None:
        raise Unavailable(where.why_no_app)
    seconds = max(where.seconds - 1, where.seconds / 2)
    slow = f"neither a connection to the broker nor an error within {seconds:g} s; --timeout gives it longer"
    found: list[WorkerFacts | Exception] = [
        WorkerFacts(broker=broker_url(where.app), took=None, no_control=slow, local=local_processes())
    ]
    # A thread of its own: not every transport has an end to every wait. What is known by then counts.
    thread = threading.Thread(target=_look, args=(where.app, seconds, found), daemon=True)
    thread.start()
    thread.join(seconds)
    last = found[-1]
    if isinstance(last, Exception):
        raise last
    return last


def _look(app: Celery, seconds: float, found: list[WorkerFacts | Exception]) -> None:
    """Add to *found*, step by step: each has all that those before it had."""
    try:
        for facts in _steps(app, found[0], seconds):  # type: ignore[arg-type]
            found.append(facts)  # noqa: PERF402 - others read it meanwhile
    except Exception as exc:  # noqa: BLE001 - raised again where it is waited for
        found.append(exc)


def _steps(app: Celery, facts: WorkerFacts, seconds: float) -> Iterator[WorkerFacts]:
    end, patience = time.monotonic() + seconds, min(max(BROKER_SECONDS, seconds / 6), seconds / 2)
    with ExitStack() as stack:
        connection, facts = _connect(app, facts, patience, end, stack)
        yield facts
        if connection is None:
            return
        trouble = (OSError, OperationalError, *connection.connection_errors, *connection.channel_errors)
        try:
            for step in _asked(app, connection, facts, end):
                facts = step
                yield facts
        except trouble as exc:
            why = why_not(exc)
            if not facts.no_control:  # what the workers said before is so all the same
                return
            if why == NO_ANSWER:
                yield replace(facts, no_control=f"the broker took a connection, and then gave {why}; {_LONGER}")
            else:
                yield replace(facts, broker_error=why)
        except Exception as exc:
            if _is_ours(exc):
                raise
            if facts.no_control:
                yield replace(facts, no_control=_settings(exc))


_LONGER: Final = "--timeout gives it longer"


def _connect(app: Celery, facts: WorkerFacts, patience: float, end: float, stack: ExitStack) -> tuple[Any, WorkerFacts]:
    """The first broker of the list that takes a connection, as workers choose it; and of the others whether they do."""
    reached, away = None, dict[str, str]()
    for url in brokers_of(app):
        began, shown = time.monotonic(), safe_url(url) if url else facts.broker
        if reached is not None and began + patience > end - LISTEN_SECONDS:
            break
        try:
            connection = stack.enter_context(connection_to(app, patience, url))
        except Exception as exc:  # noqa: BLE001 - whatever it is, a worker has it too
            odd = isinstance(exc, (TypeError, ValueError, AttributeError)) and why_not(exc) == type(exc).__name__
            away[shown] = _settings(exc) if odd and not _is_ours(exc) else why_not(exc)
        else:
            if reached is None:
                reached, facts = connection, replace(facts, broker=shown, took=time.monotonic() - began)
    if reached is not None:
        slow = f"the broker is too slow to ask workers in this time; {_LONGER}"
        return reached, replace(facts, unreached=away, port=port_of(reached), no_control=slow)
    whys = [*dict.fromkeys(away.values())]
    if NO_ANSWER in whys and patience < BROKER_SECONDS:
        return None, replace(facts, no_control=f"the broker did not answer within {patience:g} s; {_LONGER}")
    return None, replace(facts, broker=";".join(away), took=0.0, no_control="", broker_error="; ".join(whys))


def _is_ours(exc: Exception) -> bool:
    """Whether it was raised by code of this package, and so is no fault of the app's settings."""
    return Path(__file__).parents[2] in Path(traceback.extract_tb(exc.__traceback__)[-1].filename).parents


def _settings(exc: Exception) -> str:
    """What to say of settings that kombu or Celery cannot work with. The error's own text may quote a password."""
    return f"kombu cannot work with the app's settings ({raised_at(exc)}), see settings.values and settings.serializer"


def _asked(app: Celery, connection: Any, facts: WorkerFacts, end: float) -> Iterator[WorkerFacts]:
    """What the workers say until *end* (of ``time.monotonic``), and how long the queues are."""
    name = connection.transport.driver_type
    if name == "memory" or not connection.supports_exchange_type("fanout"):
        told = f"over {name}, other processes cannot be asked: Celery has no remote control there"
        yield replace(facts, no_control=told)
        return
    # those that something is sent to first
    queues = [*dict.fromkeys([app.conf.task_default_queue, *sorted(routed_queues(app)), *sorted(known_queues(app))])]
    if name == "amqp":
        facts = replace(
            facts, uncounted=dict.fromkeys(queues, f"the broker was too slow to count it in time; {_LONGER}")
        )
    # before anything is listened for: a Redis then has a command of kombu's waiting on this connection
    facts = replace(facts, ends=ends_at(connection))
    with Listener(app, connection) as listener:
        listener.ask(_QUESTIONS, seconds=LISTEN_SECONDS)
        began = time.monotonic()
        until = began + min(max(LISTEN_SECONDS, SLOW_TIMES * (facts.took or 0)), (end - began) / 2)
        listener.listen(lambda: time.monotonic() > began + ANSWER_SECONDS and _all_said(listener), until)
        first = {**listener.replies["stats"]}
        facts = _heard(facts, listener, first, began)
        yield facts
        _ask_more(app, listener)
        # none of it may cost what is known by now
        yield _heard(facts, listener, first, began)
        counted, uncounted = count_queues(
            connection, queues, min(time.monotonic() + COUNT_SECONDS, end - ANSWER_SECONDS)
        )
        facts = replace(facts, counted=counted, uncounted=uncounted)
        yield _heard(facts, listener, first, began)
        if first and (shortest_interval(app) or OFTEN + 1) <= OFTEN:
            sampled = min(reply.time for reply in first.values()) + SAMPLE_SECONDS
            listener.listen(lambda: False, min(sampled, end - ANSWER_SECONDS))
            listener.ask({"stats": {}}, [*first], seconds=ANSWER_SECONDS)
            listener.listen(lambda: _again(listener, first), time.monotonic() + ANSWER_SECONDS)
            yield _heard(facts, listener, first, began)


def _heard(facts: WorkerFacts, listener: Listener, first: Mapping[str, Any], began: float) -> WorkerFacts:
    """*facts* with what was heard since *began*; *first*: the first answers to ``inspect stats``."""
    pongs = {**listener.replies["ping"]}
    return replace(
        facts,
        no_control="",
        nodes=tuple(node_of(name, listener, first.get(name)) for name in sorted(pongs)),
        silent={name: (*beats,) for name, beats in sorted(listener.heartbeats.items()) if name not in pongs},
        twice=tuple(sorted(listener.twice)),
        listened=time.monotonic() - began,
    )


def _all_said(listener: Listener) -> bool:
    """Whether every node known so far answered everything, and was heard."""
    known = {*listener.heartbeats, *listener.replies["ping"]}
    return bool(known) and listener.answered(_QUESTIONS, known) and known == {*listener.heartbeats}


def _again(listener: Listener, first: Mapping[str, Any]) -> bool:
    return all(listener.replies["stats"][name] is not reply for name, reply in first.items())


def _ask_more(app: Celery, listener: Listener) -> None:
    """What may be large, of those nodes only where it is not."""
    stats = {name: reply.said for name, reply in listener.replies["stats"].items() if isinstance(reply.said, dict)}
    characters = app.amqp.argsrepr_maxsize + app.amqp.kwargsrepr_maxsize
    running = [name for name, said in stats.items() if concurrency_of(said) * characters <= ACTIVE_CHARACTERS_AT_MOST]
    waiting = [name for name, said in stats.items() if 0 < _etas(app, said) <= ETA_TASKS_AT_MOST]
    if running:
        listener.ask({"active": {"safe": True}}, running, seconds=ANSWER_SECONDS)
    if waiting:
        listener.ask({"scheduled": {}}, waiting, seconds=ANSWER_SECONDS)
    listener.listen(
        lambda: listener.answered(["active"], running) and listener.answered(["scheduled"], waiting),
        time.monotonic() + ANSWER_SECONDS,
    )


def _etas(app: Celery, stats: Mapping[str, Any]) -> int:
    """How many tasks with an ETA a node seems to hold: each lets it fetch one message more."""
    count, base = (
        stats.get("prefetch_count"),
        concurrency_of(stats) * int(number(app.conf.worker_prefetch_multiplier) or 0),
    )
    return count - base if isinstance(count, int) and base else 0


def concurrency_of(stats: Mapping[str, Any]) -> int:
    """How many tasks its pool runs at once, by its answer to ``inspect stats``."""
    pool = stats.get("pool") or {}
    processes = pool.get("processes")
    # the live size: autoscaling and pool_shrink change it, and not always max-concurrency
    return len(processes) if isinstance(processes, list) and processes else int(pool.get("max-concurrency") or 0)


def node_of(name: str, listener: Listener, first: Any) -> Node:
    """What *name* said; *first*: its first answer to ``inspect stats``, as a ``Reply``."""
    replies = {question: reply[name].said for question, reply in listener.replies.items() if name in reply}
    stats = first.said if first and isinstance(first.said, dict) else {}
    again = listener.replies["stats"].get(name)
    later = again.said if again and again is not first and isinstance(again.said, dict) else {}
    pool = stats.get("pool") or {}
    active = replies.get("active")
    queues, registered, argsize = (replies.get(question) for question in ("active_queues", "registered", "argsize"))
    uptime = float(stats["uptime"]) if "uptime" in stats else None
    return Node(
        name=name,
        pid=int(stats.get("pid") or 0),
        pool=str(pool.get("implementation") or "").partition(":")[0].rpartition(".")[2],
        concurrency=concurrency_of(stats),
        processes=tuple(pid for pid in pool.get("processes") or () if isinstance(pid, int)),
        queues=tuple(str(queue.get("name")) for queue in queues) if isinstance(queues, list) else (),
        uptime=uptime,
        started=None if uptime is None else time.time() - (time.monotonic() - first.time) - uptime,
        totals=stats.get("total") or {},
        later=later.get("total") or {},
        span=again.time - first.time if later and again else 0.0,
        registered=tuple(map(str, registered)) if isinstance(registered, list) else None,
        argsize=argsize if isinstance(argsize, dict) else None,
        stats=stats,
        prefetch_count=stats["prefetch_count"] if isinstance(stats.get("prefetch_count"), int) else None,
        longest_active=_longest(active),
        longest_eta=_latest(replies.get("scheduled")),
        active=len(active) if isinstance(active, list) else None,
        heartbeats=tuple(listener.heartbeats.get(name, ())),
    )


def _longest(active: Any) -> float | None:
    if not isinstance(active, list):
        return None
    begins = [one["time_start"] for one in active if isinstance(one.get("time_start"), (int, float))]
    return max(0.0, time.time() - min(begins)) if begins else 0.0


def _latest(scheduled: Any) -> float | None:
    if not isinstance(scheduled, list):
        return None
    etas = [datetime.fromisoformat(one["eta"]) for one in scheduled if one.get("eta")]
    return max([0.0, *((eta - datetime.now(eta.tzinfo)) / timedelta(seconds=1) for eta in etas)])


class Reply(NamedTuple):
    """What one worker answered to one question."""

    time: float
    """When it came: ``time.monotonic()``."""
    said: Any


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
