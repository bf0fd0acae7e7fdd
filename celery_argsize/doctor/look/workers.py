"""Looks at the broker and the live workers of an app. Keeps no argument of a task.

``look.broker`` has the connection and the remote control.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.doctor.app import known_queues, number
from celery_argsize.doctor.errors import why_not
from celery_argsize.doctor.facts import MORE_TIME, Node, Scope, Unavailable, WorkerFacts, raised_at
from celery_argsize.doctor.look.broker import TOO_SLOW, Listener, broker_url, connection_to, count_queues, same_database
from celery_argsize.doctor.redis_facts import NO_ANSWER
from celery_argsize.redis_url import safe_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

#: Seconds to wait for each answer of the broker, if ``--timeout`` is 5 to 13.
BROKER_SECONDS: Final = 2.0
#: Seconds for counting queues of an AMQP broker.
COUNT_SECONDS: Final = 3.0
#: Seconds to listen at most: enough for two heartbeats, by default 2 s apart.
LISTEN_SECONDS: Final = 5.0
#: On a slow connection, how many times as long as connecting to listen.
CONNECT_TIMES: Final = 4
#: Seconds to listen at least, as ``celery inspect`` does.
REPLY_SECONDS: Final = 1.0
#: A worker that holds more tasks with an ETA is not asked for them: the
#: reply has all their arguments.
ETA_TASKS_AT_MOST: Final = 100
#: Commands of remote control, with arguments.
_QUESTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ping": {},
    "stats": {},
    "active_queues": {},
    "registered": {"taskinfoitems": ["_"]},  # names only: no task has an attribute "_"
    "argsize": {},
}


def look_at_workers(where: Scope) -> WorkerFacts:
    """Look at the broker and all workers; raises ``Unavailable`` without an app."""
    if where.app is None:
        raise Unavailable(where.why_no_app)
    seconds = max(where.seconds - 1, where.seconds / 2)
    survey = _Survey(where.app, seconds)
    # some transports wait for ever: then the facts so far count
    thread = threading.Thread(target=survey.run, daemon=True)
    thread.start()
    thread.join(seconds)
    return survey.facts


class _Survey:
    """Looks at the broker and the workers. Each step adds to ``facts``."""

    def __init__(self, app: Celery, seconds: float) -> None:
        reason = f"the broker did not answer within {seconds:g} s; {MORE_TIME}"
        self.facts = WorkerFacts(broker=broker_url(app), connect_seconds=None, control_error=reason)
        self._app = app
        self._deadline = time.monotonic() + seconds
        self._patience = min(max(BROKER_SECONDS, seconds / 6), seconds / 2)

    def run(self) -> None:
        began = time.monotonic()
        try:
            with connection_to(self._app, self._patience) as connection:
                self._add(
                    broker=safe_url(connection.as_uri()),
                    connect_seconds=time.monotonic() - began,
                    port=int(connection.port or connection.transport.default_port or 0),
                    control_error=f"the broker is too slow to ask workers in this time; {MORE_TIME}",
                )
                self._ask(connection)
        except Exception as exc:  # noqa: BLE001 - whatever the broker or kombu raises
            if self.facts.control_error:  # else the workers' replies are known
                self._add_failure(exc)

    def _add(self, **facts: Any) -> None:
        self.facts = replace(self.facts, **facts)

    def _add_failure(self, exc: Exception) -> None:
        reason, connected = why_not(exc), self.facts.connect_seconds is not None
        slow = reason == NO_ANSWER and (connected or self._patience < BROKER_SECONDS)
        unclear = " " not in reason  # only the name of the error's class
        if slow:
            reason = f"the broker gave {reason}; {MORE_TIME}"
        elif unclear:
            where = f"({raised_at(exc)}), see settings.values, .serializer"
            reason = f"perhaps kombu cannot work with the app's settings {where}"
        if slow or (unclear and connected):
            self._add(control_error=reason)
        else:
            self._add(broker_error=reason, connect_seconds=self.facts.connect_seconds or 0.0)

    def _ask(self, connection: Any) -> None:
        transport = connection.transport.driver_type
        if transport == "memory" or not connection.supports_exchange_type("fanout"):
            self._add(control_error=f"Celery has no remote control over {transport}")
            return
        if transport == "redis":
            # before listening: then this connection only waits for replies
            self._add(ends=same_database(connection))
        queues = sorted(known_queues(self._app)) if transport == "amqp" else []
        self._add(uncounted=dict.fromkeys(queues, TOO_SLOW))
        with Listener(self._app, connection) as listener:
            self._listen(listener)
        if queues:
            deadline = min(time.monotonic() + COUNT_SECONDS, self._deadline - REPLY_SECONDS)
            counted, uncounted = count_queues(connection, queues, deadline)
            self._add(counted=counted, uncounted=uncounted)

    def _listen(self, listener: Listener) -> None:
        """Ask. Listen until each worker sent a heartbeat and all replies, or time is up."""
        listener.ask(_QUESTIONS, seconds=LISTEN_SECONDS)
        began, beats, pings = time.monotonic(), listener.heartbeats, listener.replies["ping"]

        def complete() -> bool:
            if time.monotonic() < began + REPLY_SECONDS or pings.keys() - beats.keys():
                return False
            return bool(beats) and listener.answered(_QUESTIONS, beats)

        longest = max(LISTEN_SECONDS, CONNECT_TIMES * (self.facts.connect_seconds or 0))
        listener.listen(complete, began + min(longest, (self._deadline - began) / 2))
        listened = time.monotonic() - began
        _ask_for_etas(self._app, listener)
        self._add(
            control_error="",
            nodes=tuple(_node(name, listener) for name in sorted(pings)),
            silent=tuple(sorted(beats.keys() - pings.keys())),
            shared_names=tuple(sorted(listener.shared_names)),
            listened=listened,
        )


def _ask_for_etas(app: Celery, listener: Listener) -> None:
    """Ask workers that hold a few tasks with an ETA when these are due."""
    workers, multiplier = [], int(number(app.conf.worker_prefetch_multiplier) or 0)
    for name, stats in listener.replies["stats"].items():
        # a worker prefetches one message more for each task with an ETA that it holds
        usual = _concurrency(stats) * multiplier
        if 0 < usual < (stats.get("prefetch_count") or 0) <= usual + ETA_TASKS_AT_MOST:
            workers.append(name)
    if workers:
        listener.ask({"scheduled": {}}, workers, seconds=REPLY_SECONDS)
        deadline = time.monotonic() + REPLY_SECONDS
        listener.listen(lambda: listener.answered(["scheduled"], workers), deadline)


def _concurrency(stats: Mapping[str, Any]) -> int:
    """How many tasks the pool runs at once."""
    pool = stats.get("pool") or {}
    # pool_shrink does not change max-concurrency
    return len(pool.get("processes") or ()) or int(pool.get("max-concurrency") or 0)


def _node(name: str, listener: Listener) -> Node:
    questions = listener.replies.items()
    replies = {question: workers[name] for question, workers in questions if name in workers}
    # the reply of a command that failed is a dict with the error
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
