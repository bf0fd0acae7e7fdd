"""Looks at the broker and the live workers of an app. No argument of a task is kept.

``look.broker`` connects and asks.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.doctor.app import known_queues, number
from celery_argsize.doctor.errors import why_not
from celery_argsize.doctor.facts import Node, Unavailable, WorkerFacts, raised_at
from celery_argsize.doctor.look.broker import TOO_SLOW, Listener, broker_url, connection_to, count_queues, ends_at
from celery_argsize.doctor.redis_facts import NO_ANSWER
from celery_argsize.redis_url import safe_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

    from celery_argsize.doctor.facts import Scope

#: Seconds that a broker gets for each answer, if there is time for it.
BROKER_SECONDS: Final = 2.0
#: Seconds for counting the queues of an AMQP broker.
COUNT_SECONDS: Final = 3.0
#: Seconds to listen at most: two heartbeats, 2 s apart by default, fit in.
LISTEN_SECONDS: Final = 5.0
#: Where connecting took long: how many times as long to listen.
SLOW_TIMES: Final = 4
#: Seconds to listen at least, as ``celery inspect`` does.
REPLY_SECONDS: Final = 1.0
#: A worker that holds more tasks for their ETA is not asked: the reply has their
#: arguments.
ETA_TASKS_AT_MOST: Final = 100
#: Commands of remote control, with arguments.
_QUESTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ping": {},
    "stats": {},
    "active_queues": {},
    "registered": {"taskinfoitems": ["_"]},  # no attribute of a task has that name
    "argsize": {},
}
_LONGER: Final = "--timeout gives it longer"


def look_at_workers(where: Scope) -> WorkerFacts:
    """Ask all workers of the app, on any broker; raises ``Unavailable`` without an app."""
    if where.app is None:
        raise Unavailable(where.why_no_app)
    seconds = max(where.seconds - 1, where.seconds / 2)
    survey = _Survey(where.app, seconds)
    # a thread, as some transports wait for ever: the facts so far count
    thread = threading.Thread(target=survey.run, daemon=True)
    thread.start()
    thread.join(seconds)
    return survey.facts


class _Survey:
    """A look at the broker and the workers. Each step adds to ``facts``."""

    def __init__(self, app: Celery, seconds: float) -> None:
        reason = f"the broker did not answer within {seconds:g} s; {_LONGER}"
        self.facts = WorkerFacts(broker=broker_url(app), took=None, no_control=reason)
        self._app = app
        self._deadline = time.monotonic() + seconds
        self._patience = min(max(BROKER_SECONDS, seconds / 6), seconds / 2)

    def run(self) -> None:
        """Connect, and ask."""
        began = time.monotonic()
        try:
            with connection_to(self._app, self._patience) as connection:
                self._add(
                    broker=safe_url(connection.as_uri()),
                    took=time.monotonic() - began,
                    port=int(connection.port or connection.transport.default_port or 0),
                    no_control=f"the broker is too slow to ask workers in this time; {_LONGER}",
                )
                self._ask(connection)
        except Exception as exc:  # noqa: BLE001 - whatever the broker or kombu raises
            if self.facts.no_control:  # no worker has answered by then
                self._failed(exc)

    def _add(self, **facts: Any) -> None:
        self.facts = replace(self.facts, **facts)

    def _failed(self, exc: Exception) -> None:
        reason, connected = why_not(exc), self.facts.took is not None
        slow = reason == NO_ANSWER and (connected or self._patience < BROKER_SECONDS)
        unclear = " " not in reason  # only the class of the error
        if slow:
            reason = f"the broker gave {reason}; {_LONGER}"
        elif unclear:
            reason = f"perhaps kombu cannot work with the app's settings ({raised_at(exc)}), "
            reason += "see settings.values, .serializer"
        if slow or (unclear and connected):
            self._add(no_control=reason)
        else:
            self._add(broker_error=reason, took=self.facts.took or 0.0)

    def _ask(self, connection: Any) -> None:
        transport = connection.transport.driver_type
        if transport == "memory" or not connection.supports_exchange_type("fanout"):
            self._add(no_control=f"Celery has no remote control over {transport}")
            return
        if transport == "redis":
            # before listening: then kombu waits for replies on this connection
            self._add(ends=ends_at(connection))
        queues = sorted(known_queues(self._app)) if transport == "amqp" else []
        self._add(uncounted=dict.fromkeys(queues, TOO_SLOW))
        with Listener(self._app, connection) as listener:
            self._listen(listener)
        if queues:
            until = min(time.monotonic() + COUNT_SECONDS, self._deadline - REPLY_SECONDS)
            counted, uncounted = count_queues(connection, queues, until)
            self._add(counted=counted, uncounted=uncounted)

    def _listen(self, listener: Listener) -> None:
        """Ask until each worker sent a heartbeat and all replies, or time is up."""
        listener.ask(_QUESTIONS, seconds=LISTEN_SECONDS)
        began, beats, pings = time.monotonic(), listener.heartbeats, listener.replies["ping"]

        def all_heard() -> bool:
            if time.monotonic() < began + REPLY_SECONDS or pings.keys() - beats.keys():
                return False
            return bool(beats) and listener.answered(_QUESTIONS, beats)

        most = max(LISTEN_SECONDS, SLOW_TIMES * (self.facts.took or 0))
        listener.listen(all_heard, began + min(most, (self._deadline - began) / 2))
        listened = time.monotonic() - began
        _ask_scheduled(self._app, listener)
        self._add(
            no_control="",
            nodes=tuple(_node(name, listener) for name in sorted(pings)),
            silent=tuple(sorted(beats.keys() - pings.keys())),
            twice=tuple(sorted(listener.twice)),
            listened=listened,
        )


def _ask_scheduled(app: Celery, listener: Listener) -> None:
    """Ask workers that hold a few tasks for their ETA when these are due."""
    workers, multiplier = [], int(number(app.conf.worker_prefetch_multiplier) or 0)
    for name, stats in listener.replies["stats"].items():
        # a worker fetches one message more for each task with an ETA
        usual = _concurrency(stats) * multiplier
        if 0 < usual < (stats.get("prefetch_count") or 0) <= usual + ETA_TASKS_AT_MOST:
            workers.append(name)
    if workers:
        listener.ask({"scheduled": {}}, workers, seconds=REPLY_SECONDS)
        deadline = time.monotonic() + REPLY_SECONDS
        listener.listen(lambda: listener.answered(["scheduled"], workers), deadline)


def _concurrency(stats: Mapping[str, Any]) -> int:
    """How many tasks a pool runs at once."""
    pool = stats.get("pool") or {}
    # pool_shrink changes the processes, and not max-concurrency
    return len(pool.get("processes") or ()) or int(pool.get("max-concurrency") or 0)


def _node(name: str, listener: Listener) -> Node:
    """All replies of a worker."""
    questions = listener.replies.items()
    replies = {question: workers[name] for question, workers in questions if name in workers}
    # where a command fails, the reply is a dict with its error
    lists = {question: reply for question, reply in replies.items() if isinstance(reply, list)}
    stats, beats = replies.get("stats") or {}, tuple(listener.heartbeats.get(name, ()))
    pool = stats.get("pool") or {}
    etas = [datetime.fromisoformat(task["eta"]) for task in lists.get("scheduled", ()) if task["eta"]]
    waits = [(eta - datetime.now(eta.tzinfo)).total_seconds() for eta in etas]
    return Node(
        name=name,
        pid=stats.get("pid") or 0,
        pool=str(pool.get("implementation") or "").partition(":")[0].rpartition(".")[2],
        concurrency=_concurrency(stats),
        processes=tuple(pool.get("processes") or ()),
        queues=tuple(queue["name"] for queue in lists.get("active_queues", ())),
        uptime=stats.get("uptime"),
        totals=stats.get("total") or {},
        registered=tuple(lists["registered"]) if "registered" in lists else None,
        argsize=replies.get("argsize"),
        stats=stats,
        longest_eta=max(waits, default=0.0) if "scheduled" in lists else None,
        active=beats[-1].active if beats else None,
        heartbeats=beats,
    )
