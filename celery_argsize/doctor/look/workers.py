"""What the broker and all live workers of an app say. No argument of a task is kept.

``look.broker`` makes the connection, ``look.listener`` asks over it.
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
from celery_argsize.doctor.look.broker import (
    broker_url,
    connection_to,
    count_queues,
    ends_at,
    port_of,
)
from celery_argsize.doctor.look.listener import Listener
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
#: Seconds to wait for answers at least, as ``celery inspect`` does.
ANSWER_SECONDS: Final = 1.0
#: A node that holds more tasks for their ETA is not asked for them: they come with arguments.
ETA_TASKS_AT_MOST: Final = 100

#: Command of remote control → its arguments.
_QUESTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ping": {},
    "stats": {},
    "active_queues": {},
    "registered": {"taskinfoitems": ["_"]},  # only names: no attribute of a task is called so
    "argsize": {},
}
_LONGER: Final = "--timeout gives it longer"


def look_at_workers(where: Scope) -> WorkerFacts:
    """Ask all workers of the app, on any broker.

    Raises:
        Unavailable: no app was given.
    """
    if where.app is None:
        raise Unavailable(where.why_no_app)
    seconds = max(where.seconds - 1, where.seconds / 2)
    survey = _Survey(where.app, seconds)
    # a thread, as some transports wait for ever: what is known by then counts
    thread = threading.Thread(target=survey.run, daemon=True)
    thread.start()
    thread.join(seconds)
    return survey.facts


class _Survey:
    """One look at the broker and the workers; each step adds to ``facts``."""

    def __init__(self, app: Celery, seconds: float) -> None:
        reason = f"the broker did not answer within {seconds:g} s; {_LONGER}"
        self.facts = WorkerFacts(broker=broker_url(app), took=None, no_control=reason)
        self._app = app
        self._end = time.monotonic() + seconds
        self._patience = min(max(BROKER_SECONDS, seconds / 6), seconds / 2)

    def run(self) -> None:
        """Connect and ask. Of a failover list, kombu takes the first broker that answers."""
        began = time.monotonic()
        try:
            with connection_to(self._app, self._patience) as connection:
                took, broker = time.monotonic() - began, safe_url(connection.as_uri())
                slow = f"the broker is too slow to ask workers in this time; {_LONGER}"
                self._add(broker=broker, took=took, port=port_of(connection), no_control=slow)
                self._ask(connection)
        except Exception as exc:  # noqa: BLE001 - whatever the broker or kombu raises
            if self.facts.no_control:  # no worker has answered by then
                self._failed(exc)

    def _add(self, **more: Any) -> None:
        self.facts = replace(self.facts, **more)

    def _failed(self, exc: Exception) -> None:
        reason, connected = why_not(exc), self.facts.took is not None
        if unclear := " " not in reason:  # it is only the class of the error
            reason = f"perhaps kombu cannot work with the app's settings ({raised_at(exc)}), "
            reason += "see settings.values, .serializer"
        if reason == NO_ANSWER and (connected or self._patience < BROKER_SECONDS):
            self._add(no_control=f"the broker gave {reason}; {_LONGER}")
        elif unclear and connected:
            self._add(no_control=reason)
        else:
            self._add(broker_error=reason, took=self.facts.took or 0.0)

    def _ask(self, connection: Any) -> None:
        app, transport = self._app, connection.transport.driver_type
        if transport == "memory" or not connection.supports_exchange_type("fanout"):
            self._add(no_control=f"Celery has no remote control over {transport}")
            return
        queues = sorted(known_queues(app))
        if transport == "amqp":
            late = f"the broker was too slow to count it in time; {_LONGER}"
            self._add(uncounted=dict.fromkeys(queues, late))
        # before listening: on Redis, kombu then waits for answers on this connection
        self._add(ends=ends_at(connection))
        with Listener(app, connection) as listener:
            self._hear(listener)
            _ask_scheduled(app, listener)
            self._add(nodes=_nodes(listener))
        until = min(time.monotonic() + COUNT_SECONDS, self._end - ANSWER_SECONDS)
        counted, uncounted = count_queues(connection, queues, until)
        self._add(counted=counted, uncounted=uncounted)

    def _hear(self, listener: Listener) -> None:
        """Ask until every node heard sent a heartbeat and answered everything, or time is up."""
        listener.ask(_QUESTIONS, seconds=LISTEN_SECONDS)
        began, alive, answers = time.monotonic(), listener.heartbeats, listener.replies["ping"]
        most = max(LISTEN_SECONDS, SLOW_TIMES * (self.facts.took or 0))
        listener.listen(
            lambda: (
                time.monotonic() > began + ANSWER_SECONDS
                and alive.keys() >= answers.keys()
                and listener.answered(_QUESTIONS, alive or {"nobody"})
            ),
            began + min(most, (self._end - began) / 2),
        )
        self._add(
            no_control="",
            nodes=_nodes(listener),
            silent=tuple(sorted(alive.keys() - answers.keys())),
            twice=tuple(sorted(listener.twice)),
            listened=time.monotonic() - began,
        )


def _ask_scheduled(app: Celery, listener: Listener) -> None:
    """Ask nodes that hold a few tasks for their ETA when these are due."""
    nodes, multiplier = [], int(number(app.conf.worker_prefetch_multiplier) or 0)
    for name, stats in listener.replies["stats"].items():
        # a worker fetches one message more for each
        usual = _concurrency(stats) * multiplier
        if 0 < usual < (stats.get("prefetch_count") or 0) <= usual + ETA_TASKS_AT_MOST:
            nodes.append(name)
    if nodes:
        listener.ask({"scheduled": {}}, nodes, seconds=ANSWER_SECONDS)
        deadline = time.monotonic() + ANSWER_SECONDS
        listener.listen(lambda: listener.answered(["scheduled"], nodes), deadline)


def _concurrency(stats: Mapping[str, Any]) -> int:
    """How many tasks a pool runs at once, by the answer to ``inspect stats``."""
    pool = stats.get("pool") or {}
    # the live size first: pool_shrink changes it, and not max-concurrency
    return len(pool.get("processes") or ()) or int(pool.get("max-concurrency") or 0)


def _nodes(listener: Listener) -> tuple[Node, ...]:
    return tuple(_node(name, listener) for name in sorted(listener.replies["ping"]))


def _node(name: str, listener: Listener) -> Node:
    """What the node *name* answered."""
    replies = listener.replies.items()
    answers = {question: nodes[name] for question, nodes in replies if name in nodes}
    # where a command fails, the answer is a dict with its error
    lists = {question: answer for question, answer in answers.items() if isinstance(answer, list)}
    stats, beats = answers.get("stats") or {}, tuple(listener.heartbeats.get(name, ()))
    pool = stats.get("pool") or {}
    etas = [_seconds_until(task["eta"]) for task in lists.get("scheduled", ()) if task["eta"]]
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
        argsize=answers.get("argsize"),
        stats=stats,
        longest_eta=max(etas, default=0.0) if "scheduled" in lists else None,
        active=beats[-1].active if beats else None,
        heartbeats=beats,
    )


def _seconds_until(moment: str) -> float:
    eta = datetime.fromisoformat(moment)
    return (eta - datetime.now(eta.tzinfo)).total_seconds()
