"""What the broker and all live workers of an app say. Of arguments of tasks nothing is kept.

``look.broker`` makes the connection, ``look.listener`` asks over it.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.doctor.app import known_queues, number, routed_queues, shortest_interval
from celery_argsize.doctor.errors import why_not
from celery_argsize.doctor.facts import Node, Unavailable, WorkerFacts, raised_at
from celery_argsize.doctor.look.broker import (
    broker_url,
    brokers_of,
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
    from celery_argsize.doctor.look.listener import Reply

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
#: Where something is due every OFTEN seconds, runs are counted twice, SAMPLE_SECONDS apart.
OFTEN: Final = 2.0
SAMPLE_SECONDS: Final = 4.0
#: Tasks that wait for their ETA which a node may hold to be asked for them.
ETA_TASKS_AT_MOST: Final = 100
#: Running tasks are asked for if the app's limits keep the reprs of one task's arguments to so many characters.
REPRS_AT_MOST: Final = 1 << 14

#: Command of remote control → its arguments.
_QUESTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ping": {},
    "stats": {},
    "active_queues": {},
    "registered": {"taskinfoitems": ["_"]},  # names only: no attribute of a task is called so
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
    """One look at the broker and the workers."""

    def __init__(self, app: Celery, seconds: float) -> None:
        reason = f"neither a connection to the broker nor an error within {seconds:g} s; {_LONGER}"
        self.facts = WorkerFacts(broker=broker_url(app), took=None, no_control=reason)
        """What is known so far. Each step adds to it."""
        self._app = app
        self._end = time.monotonic() + seconds
        self._patience = min(max(BROKER_SECONDS, seconds / 6), seconds / 2)

    def run(self) -> None:
        """Connect and ask."""
        with ExitStack() as stack:
            try:
                connection = self._connect(stack)
                if connection is not None:
                    self._ask(connection)
            except Exception as exc:  # noqa: BLE001 - whatever the broker or kombu raises
                self._failed(exc)

    def _add(self, **more: Any) -> None:
        self.facts = replace(self.facts, **more)

    def _connect(self, stack: ExitStack) -> Any:
        """The first broker that takes a connection, as workers choose it. Others of a list are tried as well."""
        connection, errors = None, dict[str, str]()
        for url in brokers_of(self._app):
            began, shown = time.monotonic(), safe_url(url) if url else self.facts.broker
            if connection is not None and began + self._patience > self._end - LISTEN_SECONDS:
                break
            try:
                latest = stack.enter_context(connection_to(self._app, self._patience, url))
            except Exception as exc:  # noqa: BLE001 - whatever it is, a worker gets it too
                errors[shown] = _reason(exc)
                continue
            if connection is None:
                connection = latest
                self._add(broker=shown, took=time.monotonic() - began, port=port_of(connection))
        if connection is not None:
            self._add(unreached=errors, no_control=f"the broker is too slow to ask workers in this time; {_LONGER}")
        elif NO_ANSWER in errors.values() and self._patience < BROKER_SECONDS:
            self._add(no_control=f"the broker did not answer within {self._patience:g} s; {_LONGER}")
        else:
            reasons = "; ".join(dict.fromkeys(errors.values()))
            self._add(broker=";".join(errors), took=0.0, no_control="", broker_error=reasons)
        return connection

    def _failed(self, exc: Exception) -> None:
        """Note why asking ended early, unless workers have answered by then."""
        reason = _reason(exc)
        if not self.facts.no_control:
            pass
        elif reason == NO_ANSWER:
            self._add(no_control=f"the broker took a connection, and then gave {reason}; {_LONGER}")
        elif reason == why_not(exc):
            self._add(broker_error=reason, took=self.facts.took or 0.0)
        else:
            self._add(no_control=reason)

    def _ask(self, connection: Any) -> None:
        app, transport = self._app, connection.transport.driver_type
        if transport == "memory" or not connection.supports_exchange_type("fanout"):
            reason = f"over {transport}, other processes cannot be asked: Celery has no remote control there"
            self._add(no_control=reason)
            return
        # first those that something is sent to, as there may be no time to count all
        queues = [app.conf.task_default_queue, *sorted(routed_queues(app)), *sorted(known_queues(app))]
        queues = [*dict.fromkeys(queues)]
        if transport == "amqp":
            self._add(uncounted=dict.fromkeys(queues, f"the broker was too slow to count it in time; {_LONGER}"))
        # before listening: on Redis, kombu then waits for answers on this very connection
        self._add(ends=ends_at(connection))
        with Listener(app, connection) as listener:
            questions = {**_QUESTIONS}
            if app.amqp.argsrepr_maxsize + app.amqp.kwargsrepr_maxsize <= REPRS_AT_MOST:
                questions["active"] = {"safe": True}
            listener.ask(questions, seconds=LISTEN_SECONDS)
            began = time.monotonic()
            wait = min(max(LISTEN_SECONDS, SLOW_TIMES * (self.facts.took or 0)), (self._end - began) / 2)
            # until every node heard so far sent a heartbeat, and answered everything
            listener.listen(
                lambda: (
                    time.monotonic() > began + ANSWER_SECONDS
                    and listener.heartbeats.keys() >= listener.replies["ping"].keys()
                    and listener.answered(questions, listener.heartbeats or {"nobody"})
                ),
                began + wait,
            )
            first = {**listener.replies["stats"]}
            self._note(listener, first, began)
            _ask_scheduled(app, listener)
            self._note(listener, first, began)
            until = min(time.monotonic() + COUNT_SECONDS, self._end - ANSWER_SECONDS)
            counted, uncounted = count_queues(connection, queues, until)
            self._add(counted=counted, uncounted=uncounted)
            if first and 0 < (shortest_interval(app) or 0) <= OFTEN:
                _ask_again(listener, first, self._end - ANSWER_SECONDS)
                self._note(listener, first, began)

    def _note(self, listener: Listener, first: Mapping[str, Reply], began: float) -> None:
        """Add what was heard since *began*; *first*: node → its first reply about its stats."""
        names = sorted(listener.replies["ping"])
        self._add(
            no_control="",
            nodes=tuple(_node(name, listener, first.get(name)) for name in names),
            silent=tuple(name for name in sorted(listener.heartbeats) if name not in names),
            twice=tuple(sorted(listener.twice)),
            listened=time.monotonic() - began,
        )


def _reason(exc: Exception) -> str:
    """Why the broker cannot be used. The error's own text may quote a password."""
    reason = why_not(exc)
    if " " in reason:
        return reason
    # only the class of the error is known
    return f"perhaps kombu cannot work with the app's settings ({raised_at(exc)}), see settings.values, .serializer"


def _ask_scheduled(app: Celery, listener: Listener) -> None:
    """Ask for the tasks that wait for their ETA, each node only if it holds few: they come with their arguments."""
    nodes = []
    for name, reply in listener.replies["stats"].items():
        # a worker fetches one message more for each
        usual = _concurrency(reply.said) * int(number(app.conf.worker_prefetch_multiplier) or 0)
        if usual and 0 < (reply.said.get("prefetch_count") or 0) - usual <= ETA_TASKS_AT_MOST:
            nodes.append(name)
    if nodes:
        listener.ask({"scheduled": {}}, nodes, seconds=ANSWER_SECONDS)
        listener.listen(lambda: listener.answered(["scheduled"], nodes), time.monotonic() + ANSWER_SECONDS)


def _ask_again(listener: Listener, first: Mapping[str, Reply], end: float) -> None:
    """Have each node tell its runs again, SAMPLE_SECONDS later."""
    later = min(reply.time for reply in first.values()) + SAMPLE_SECONDS
    listener.listen(lambda: False, min(later, end))
    listener.ask({"stats": {}}, [*first], seconds=ANSWER_SECONDS)
    latest = listener.replies["stats"]
    listener.listen(
        lambda: all(latest[name] is not reply for name, reply in first.items()), time.monotonic() + ANSWER_SECONDS
    )


def _concurrency(stats: Mapping[str, Any]) -> int:
    """How many tasks a pool runs at once, by the answer to ``inspect stats``."""
    pool = stats.get("pool") or {}
    # the live size first: autoscaling and pool_shrink change it, and not always max-concurrency
    return len(pool.get("processes") or ()) or int(pool.get("max-concurrency") or 0)


def _node(name: str, listener: Listener, first: Reply | None) -> Node:
    """What the node *name* answered; *first*: its first reply about its stats."""
    answers = {question: replies[name].said for question, replies in listener.replies.items() if name in replies}
    lists = {question: answer for question, answer in answers.items() if isinstance(answer, list)}
    latest = listener.replies["stats"].get(name)
    again = latest if latest is not first else None
    stats = first.said if first else {}
    pool = stats.get("pool") or {}
    etas = [task["eta"] for task in lists.get("scheduled", ()) if task["eta"]]
    return Node(
        name=name,
        pid=int(stats.get("pid") or 0),
        pool=str(pool.get("implementation") or "").partition(":")[0].rpartition(".")[2],
        concurrency=_concurrency(stats),
        processes=tuple(pool.get("processes") or ()),
        queues=tuple(str(queue.get("name")) for queue in lists.get("active_queues", ())),
        uptime=stats.get("uptime"),
        totals=stats.get("total") or {},
        later=again.said.get("total") or {} if again else {},
        span=again.time - first.time if again and first else 0.0,
        registered=tuple(lists["registered"]) if "registered" in lists else None,
        argsize=answers.get("argsize"),
        stats=stats,
        longest_eta=max(map(_seconds_until, etas), default=0.0) if "scheduled" in lists else None,
        active=len(lists["active"]) if "active" in lists else None,
        heartbeats=tuple(listener.heartbeats.get(name, ())),
    )


def _seconds_until(moment: str) -> float:
    eta = datetime.fromisoformat(moment)
    return (eta - datetime.now(eta.tzinfo)).total_seconds()
