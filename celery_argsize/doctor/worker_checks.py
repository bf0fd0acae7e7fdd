"""The checks of the groups broker and workers: who answers, and how they fare.

Those of pools and queues are in ``pool_checks`` and ``queue_checks``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.app_words import word_of
from celery_argsize.doctor.broker_facts import NO_ANSWER
from celery_argsize.doctor.broker_fixes import broker_fix
from celery_argsize.doctor.checks import Check, NotKnown, fail, ok, unknown, warn
from celery_argsize.doctor.pool_checks import POOL_CHECKS
from celery_argsize.doctor.queue_checks import QUEUE_CHECKS
from celery_argsize.doctor.queue_facts import queue_of
from celery_argsize.doctor.silence import is_starting, unheard
from celery_argsize.doctor.spelling import setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts
    from celery_argsize.doctor.host_facts import CeleryProcess
    from celery_argsize.doctor.listening import Heartbeat
    from celery_argsize.doctor.worker_facts import Node, WorkerFacts

__all__ = ["CHECKS"]

#: Seconds that two clocks may differ: ``HEARTBEAT_DRIFT_MAX`` of celery.events.state.
DRIFT_SECONDS: Final = 16
#: Seconds that looking takes by default, and that is enough but for a slow broker.
DEFAULT_SECONDS: Final = 10
#: Seconds without any answer to conclude from: what ``celery inspect`` waits.
LISTENED_AT_LEAST: Final = 1.0
#: Seconds to connect from which on they are shown, and from which on the broker is slow. A connection takes several
#: round trips, so these are some 0.2 s each.
SHOWN_SECONDS: Final = 0.5
SLOW_SECONDS: Final = 2.0
#: Connecting takes several round trips, and so does an answer: how many times as long to hear somebody.
ANSWER_TIMES: Final = 3
#: Names that are shown of many.
SHOWN: Final = 5


def some_of(names: Sequence[str]) -> str:
    """The first of *names*, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


# --- the broker


def _reachable(facts: Facts) -> list[Outcome]:
    found = facts.workers.get()
    if found.took is None:
        raise NotKnown(found.no_control)
    if found.broker_error:
        reason = f"No task is sent or run: {found.broker_error}."
        return [fail(reason, found.broker, fix=_how_to_reach(facts, found.broker, found.broker_error))]
    figure = f"{found.broker}, connected in {found.took:.1f} s" if found.took >= SHOWN_SECONDS else found.broker
    if found.took < SLOW_SECONDS:
        outcomes = [ok("The broker takes connections.", figure)]
    else:
        reason = "The broker is there, and slow: whoever sends a task waits that long, and workers are hard to ask."
        fix = "# what takes so long: its machine, the network, or the look-up of its name\n"
        outcomes = [warn(reason, figure, fix=f"{fix}# to look all the same:\n{_patiently(facts)}")]
    return outcomes + [
        warn(
            f"It is one of the brokers that broker_url lists, and takes no connection: {why}. Workers and senders go "
            "on with another one; messages that are left in this one wait until it is back.",
            url,
            fix=_how_to_reach(facts, url, why),
            subject=url,
        )
        for url, why in found.unreached.items()
    ]


def _how_to_reach(facts: Facts, url: str, why: str) -> str:
    """Lines that see after the broker at *url*; where there was no answer it may only be slow."""
    fix = broker_fix(facts.app, url, why)
    return f"{fix}\n# or, if it is there and slow:\n{_patiently(facts)}" if NO_ANSWER in why else fix


def _patiently(facts: Facts) -> str:
    return f"celery -A {word_of(facts.app)} argsize doctor --timeout {max(60, round(3 * facts.where.seconds))}"


# --- who answers


def _answering(facts: Facts) -> list[Outcome]:
    found = facts.workers.get().asked()
    if not facts.conf.worker_enable_remote_control:
        message = "worker_enable_remote_control is off: workers answer nothing"
        raise NotKnown(message)
    names = [node.name for node in found.nodes]
    start = f"celery -A {word_of(facts.app)} worker -l info"
    if not names and found.listened < max(LISTENED_AT_LEAST, ANSWER_TIMES * (found.took or 0)):
        timeout = 60 if facts.where.seconds >= DEFAULT_SECONDS else 10
        message = f"too little time to hear the workers: {found.listened:.1f} s; give it --timeout {timeout}"
        raise NotKnown(message)
    excuses = [] if names else [(one.pid, why) for one in unheard(facts) if (why := _excuse(facts, one))]
    if excuses:
        return [unknown(f"no other worker answers, and {why}", subject=f"pid {pid}") for pid, why in excuses]
    if not names:
        where = f" at {found.broker}" if found.unreached else ""
        reason = (
            "No worker answers: none runs on this broker, or all are stuck. A solo worker answers only between tasks."
        )
        return [fail(reason, f"0 answers within {found.listened:.0f} s{where}", fix=f"# start one:\n{start}")]
    outcomes = [ok("Workers answer.", some_of(names))]
    return outcomes + [
        warn(
            "Several workers have this name: what is sent to one is done by any, and answers get mixed up.",
            subject=name,
            fix=f"# give each a name of its own, with -n (%h is the host):\n{start} -n worker1@%h",
        )
        for name in found.twice
    ]


def _silent(facts: Facts) -> list[Outcome]:
    """Workers that are known to be there, and do not answer."""
    found = facts.workers.get().asked()
    heard = [
        fail(
            "It sends heartbeats and does not answer: it is stuck, or a solo worker in a task.",
            f"no answer within {found.listened:.0f} s",
            fix=_RESTART,
            subject=name,
        )
        for name in found.silent
    ]
    here = [outcome for process in unheard(facts) if (outcome := _of_process(facts, found, process))]
    return heard + here or [ok("Every worker that is known answers.")] * bool(found.nodes)


_RESTART: Final = (
    "# what it does now (py-spy is a tool of its own):\npy-spy dump --pid PID\n# and start it again, if it stays so"
)


def _excuse(facts: Facts, process: CeleryProcess) -> str:
    """Why a worker that is at this broker need not answer now; empty: it should, or it is not known to be there."""
    local = facts.workers.get().local[process.pid]
    if local.stopped or (is_starting(process) and not local.ports):
        return ""
    if (local.pool or facts.conf.worker_pool) == "solo":
        return "a solo worker answers only between tasks, and this one did not"
    return "it does not answer: it is starting, or a solo worker in a task" if is_starting(process) else ""


def _of_process(facts: Facts, found: WorkerFacts, process: CeleryProcess) -> Outcome | None:
    local = found.local[process.pid]
    subject = f"pid {process.pid}"
    if local.stopped:
        return fail(
            "This worker is stopped (SIGSTOP): it takes nothing, and what it has fetched waits.",
            "state: stopped",
            fix=f"kill -CONT {process.pid}",
            subject=subject,
        )
    if excuse := _excuse(facts, process):
        return unknown(excuse, subject=subject)
    if is_starting(process):
        return None
    return fail(
        "This worker runs here and does not answer: it is stuck, starved, or shutting down.",
        f"no answer within {found.listened:.0f} s",
        fix=_RESTART.replace("PID", str(process.pid)),
        subject=subject,
    )


# --- heartbeats


def _heartbeats(facts: Facts) -> list[Outcome]:
    found = facts.workers.get()
    nodes = found.live()
    troubles = [outcome for node in nodes for outcome in (_late(facts, node, found.listened), _drift(node)) if outcome]
    quiet = [node.name for node in nodes if not node.heartbeats]
    if quiet:
        told = "started with --without-heartbeat, or with a longer --heartbeat-interval. They answer, which is enough."
        troubles.append(ok(told, f"no heartbeat within {found.listened:.0f} s from {some_of(quiet)}"))
    heard = len(nodes) - len(quiet)
    return troubles or [ok("Heartbeats come in time.", f"{heard} of {len(nodes)} heard")]


def _late(facts: Facts, node: Node, listened: float) -> Outcome | None:
    """A gap twice as long as it should be. The first one says how long that is."""
    times = [beat.received for beat in node.heartbeats]
    gap = max((later - earlier for earlier, later in pairwise(times)), default=0.0)
    every = max((beat.every for beat in node.heartbeats), default=0.0)
    if gap <= 2 * every + 1:
        return None
    return warn(
        "Heartbeats come late: the worker starves (CPU, swap) or its connection hangs. In other workers' logs this is "
        "“missed heartbeat”. Celery has no setting worker_heartbeat: no timeout cures it.",
        f"{gap:.1f} s between two, where {every:g} s are due (heard for {listened:.0f} s)",
        fix="# fewer children, or a limit on their memory (in KiB), so that the machine keeps up:\n"
        + setting(facts.app, "worker_concurrency", 2)
        + "\n"
        + setting(facts.app, "worker_max_memory_per_child", 512000),
        subject=node.name,
    )


def _drift(node: Node) -> Outcome | None:
    drifts = [_drift_of(beat) for beat in node.heartbeats]
    drift = min(drifts, key=abs, default=0.0)
    if abs(drift) <= DRIFT_SECONDS:
        return None
    return warn(
        "The clocks of that machine and this one differ: ETAs, countdowns and expires come early or late there.",
        f"{abs(drift):.0f} s {'behind' if drift > 0 else 'ahead'}",
        fix="# on both machines:\ntimedatectl set-ntp true",
        subject=node.name,
    )


def _drift_of(beat: Heartbeat) -> float:
    return beat.received - beat.sent


# --- what they can run


def _registered(facts: Facts) -> list[Outcome]:
    nodes = [node for node in facts.workers.get().live() if node.registered is not None]
    lacking = [(node, *found) for node in nodes if (found := _lacks(facts, node, nodes))]
    return [
        warn(
            "Other workers on this queue know tasks that this one does not. It throws such messages away (“Received "
            "unregistered task”): they run different versions, or different apps share the queue.",
            f"{len(names)} unknown on queue {queue}: {some_of(names)}",
            fix="# deploy the same code to all, or give each app a queue of its own:\n"
            + setting(facts.app, "task_default_queue", "a_name_of_its_own"),
            subject=node.name,
        )
        for node, queue, names in lacking
    ] or [ok("Workers that share a queue know the same tasks.", f"{len(nodes)} asked")]


def _lacks(facts: Facts, node: Node, nodes: Sequence[Node]) -> tuple[str, list[str]] | None:
    """A queue of *node*, and the tasks sent there that others on it know and *node* does not."""
    for queue in node.queues:
        known = {name for other in nodes if queue in other.queues for name in other.registered or ()}
        lacks = sorted(known - set(node.registered or ()))
        # of another app's tasks it is not known where they are sent
        lacks = [name for name in lacks if name not in facts.app.tasks or queue_of(facts.app, name) == queue]
        if lacks:
            return queue, lacks
    return None


CHECKS: Final[tuple[Check, ...]] = (
    Check("broker.reachable", "a connection to the broker", _reachable, vital=True),
    Check("workers.answering", "who answers a ping", _answering, vital=True),
    Check("workers.silent", "workers that are known and do not answer", _silent),
    Check("workers.heartbeats", "worker-heartbeat events, their gaps and clocks", _heartbeats),
    *POOL_CHECKS,
    *QUEUE_CHECKS,
    Check("workers.registered", "the tasks of workers that share a queue", _registered),
)
