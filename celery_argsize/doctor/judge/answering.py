"""The check workers.answering: who answers, who should and does not, and heartbeats."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.app import is_of_app, word_of
from celery_argsize.doctor.checks import fail, ok, unknown, warn
from celery_argsize.doctor.facts import Unavailable
from celery_argsize.doctor.judge.host import less_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import CeleryProcess, Facts, Node, WorkerFacts

#: Seconds after its start in which a worker need not answer: an app may take long to import.
STARTING_SECONDS: Final = 60
#: Seconds that two clocks may differ: ``HEARTBEAT_DRIFT_MAX`` of celery.events.state.
DRIFT_SECONDS: Final = 16
#: Seconds without an answer that prove something, as ``celery inspect`` waits; more if slow.
LISTENED_AT_LEAST: Final = 1.0
ANSWER_TIMES: Final = 3
#: How many of many names are shown.
SHOWN: Final = 5


def some_of(names: Sequence[str]) -> str:
    """The first of *names*, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def answering(facts: Facts) -> list[Outcome]:
    """Judge who answers."""
    workers = facts.workers.get().asked()
    if not facts.conf.worker_enable_remote_control:
        raise Unavailable("worker_enable_remote_control is off")  # noqa: EM101, TRY003
    if not workers.nodes:
        return _nobody(facts, workers)
    figure = some_of([node.name for node in workers.nodes])
    if quiet := [node.name for node in workers.nodes if not node.heartbeats]:
        figure += f"; no heartbeat within {workers.listened:.0f} s from {some_of(quiet)}"
    outcomes = [ok("Workers answer.", figure)]
    for name in workers.twice:
        reason, fix = "Several workers have this name.", "celery worker -n worker1@%h  # %h: host"
        outcomes.append(warn(reason, fix=fix, subject=name))
    outcomes += _silent(facts, workers)
    for node in workers.nodes:
        outcomes += _heartbeats(facts, node)
    return outcomes


def _nobody(facts: Facts, workers: WorkerFacts) -> list[Outcome]:
    if workers.listened < max(LISTENED_AT_LEAST, ANSWER_TIMES * (workers.took or 0)):
        raise Unavailable("too little time to hear workers: --timeout 60")  # noqa: EM101, TRY003
    silent = [*_silent(facts, workers)]
    if any(outcome.verdict == "unknown" for outcome in silent):
        return silent
    figure, fix = f"0 answers within {workers.listened:.0f} s", f"celery -A {word_of(facts.app)} worker"
    return [fail("No worker answers: none runs, or all are stuck.", figure, fix=fix), *silent]


def _silent(facts: Facts, workers: WorkerFacts) -> Iterator[Outcome]:
    """Workers known by a heartbeat or by their process, that do not answer."""
    figure = f"no answer within {workers.listened:.0f} s"
    for name in workers.silent:
        reason = "It sends heartbeats and no answer: it is stuck, or solo and in a task."
        yield fail(reason, figure, fix="py-spy dump --pid PID", subject=name)
    for process in unheard(facts):
        subject = f"pid {process.pid}"
        young = time.time() - process.created <= STARTING_SECONDS
        if process.stopped:
            reason = "It is stopped (SIGSTOP), and what it has fetched waits."
            yield fail(reason, fix=f"kill -CONT {process.pid}", subject=subject)
        elif young or (process.pool or facts.conf.worker_pool) == "solo":
            reason = "it does not answer: it is starting, or a solo worker in a task"
            yield unknown(reason, subject=subject)
        else:
            reason = "It runs here and does not answer: it is stuck, or shutting down."
            fix = f"py-spy dump --pid {process.pid}  # restart it, if it stays so"
            yield fail(reason, figure, fix=fix, subject=subject)


def unheard(facts: Facts) -> list[CeleryProcess]:
    """Workers of the app on this machine, at its broker, that do not answer."""
    workers, host = facts.workers.get(), facts.host.found
    if host is None or workers.twice:  # of two workers with one name, only one pid is known
        return []
    answering = {node.pid for node in workers.nodes}
    return [
        process
        for process in host.processes
        if process.kind == "worker"
        and process.pid not in answering
        and is_of_app(facts.app, process.app)
        and not process.elsewhere(workers.port)
    ]


def unheard_names(facts: Facts) -> list[str]:
    """All workers that are known and do not answer: by name, or by pid."""
    pids = [f"the worker with pid {process.pid}" for process in unheard(facts)]
    return [*facts.workers.get().silent, *pids]


def _heartbeats(facts: Facts, node: Node) -> Iterator[Outcome]:
    """Heartbeats that come late, and a clock that differs from this machine's."""
    beats = node.heartbeats
    gaps = [later.received - earlier.received for earlier, later in pairwise(beats)]
    if gaps and max(gaps) > 2 * beats[0].every + 1:
        reason = "Heartbeats come late: it lacks CPU or memory, or its connection hangs."
        figure = f"{max(gaps):.1f} s between two, where {beats[0].every:g} s are due"
        yield warn(reason, figure, fix=less_memory(facts, 2), subject=node.name)
    # one of them may have been held up on its way
    drift = min((beat.received - beat.sent for beat in beats), key=abs, default=0.0)
    if abs(drift) > DRIFT_SECONDS:
        reason = "Its machine's clock differs from this one's: ETAs come early or late."
        figure = f"{abs(drift):.0f} s {'behind' if drift > 0 else 'ahead'}"
        yield warn(reason, figure, fix="timedatectl set-ntp true", subject=node.name)
