"""The check workers.answering: who answers, who should and does not, and whether heartbeats come in time."""

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
#: Seconds without an answer that prove something: as ``celery inspect`` waits, or longer where connecting took long.
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
        raise Unavailable("worker_enable_remote_control is off: workers answer nothing")  # noqa: EM101, TRY003
    if not workers.nodes:
        return _nobody(facts, workers)
    figure = some_of([node.name for node in workers.nodes])
    if quiet := [node.name for node in workers.nodes if not node.heartbeats]:
        figure += f"; no heartbeat within {workers.listened:.0f} s from {some_of(quiet)}"
    outcomes = [ok("Workers answer.", figure)]
    for name in workers.twice:
        reason = "Several workers have this name: what is sent to one is done by any, and answers get mixed up."
        fix = f"# give each a name of its own (%h is the host):\ncelery -A {word_of(facts.app)} worker -n worker1@%h"
        outcomes.append(warn(reason, fix=fix, subject=name))
    outcomes += _silent(facts, workers)
    for node in workers.nodes:
        outcomes += _heartbeats(facts, node)
    return outcomes


def _nobody(facts: Facts, workers: WorkerFacts) -> list[Outcome]:
    if workers.listened < max(LISTENED_AT_LEAST, ANSWER_TIMES * (workers.took or 0)):
        heard = f"{workers.listened:.1f} s"
        raise Unavailable(f"too little time to hear the workers: {heard}; give it --timeout 60")  # noqa: EM102, TRY003
    silent = [*_silent(facts, workers)]
    if any(outcome.verdict == "unknown" for outcome in silent):
        return silent
    where = f" at {workers.broker}" if workers.unreached else ""
    figure = f"0 answers within {workers.listened:.0f} s{where}"
    reason = "No worker answers: none runs on this broker, or all are stuck. A solo worker answers only between tasks."
    return [fail(reason, figure, fix=f"celery -A {word_of(facts.app)} worker -l info"), *silent]


def _silent(facts: Facts, workers: WorkerFacts) -> Iterator[Outcome]:
    """Workers that are known, by a heartbeat or by their process, and do not answer."""
    for name in workers.silent:
        yield _stuck("It sends heartbeats and does not answer: it is stuck, or a solo worker in a task.", workers, name)
    for process in unheard(facts):
        subject = f"pid {process.pid}"
        if process.stopped:
            reason = "This worker is stopped (SIGSTOP): it takes nothing, and what it has fetched waits."
            yield fail(reason, "state: stopped", fix=f"kill -CONT {process.pid}", subject=subject)
        elif is_starting(process) and not process.ports:
            continue  # it has not come to this broker yet
        elif (process.pool or facts.conf.worker_pool) == "solo":
            yield unknown("a solo worker answers only between tasks, and this one did not", subject=subject)
        elif is_starting(process):
            yield unknown("it does not answer: it is starting, or a solo worker in a task", subject=subject)
        else:
            yield _stuck("It runs here and does not answer: it is stuck, starved, or shutting down.", workers, subject)


def _stuck(reason: str, workers: WorkerFacts, subject: str) -> Outcome:
    pid = subject.removeprefix("pid ") if subject.startswith("pid ") else "PID"
    fix = f"# what it does now (with py-spy):\npy-spy dump --pid {pid}\n# and start it again, if it stays so"
    return fail(reason, f"no answer within {workers.listened:.0f} s", fix=fix, subject=subject)


def is_starting(process: CeleryProcess) -> bool:
    """Whether the process is so young that it may still be starting."""
    return time.time() - process.created <= STARTING_SECONDS


def unheard(facts: Facts) -> list[CeleryProcess]:
    """Workers of the app on this machine, at its broker, that do not answer."""
    workers, host = facts.workers.get(), facts.host.found
    if host is None or workers.twice:  # of two workers with one name, only one pid is known
        return []
    mains = [process for process in host.processes if process.kind == "worker"]
    answering = {node.pid for node in workers.nodes}
    launchers = {process.ppid for process in mains}  # with the command line of what they started
    return [
        process
        for process in mains
        if answering.isdisjoint({process.pid, process.ppid}) and process.pid not in launchers
        if is_of_app(facts.app, process.app)
        if not process.elsewhere(workers.port) or (is_starting(process) and not process.ports)
    ]


def unheard_names(facts: Facts) -> list[str]:
    """All workers that are known and do not answer: by their node's name, or by their pid."""
    return [*facts.workers.get().silent, *(f"the worker with pid {process.pid}" for process in unheard(facts))]


def _heartbeats(facts: Facts, node: Node) -> Iterator[Outcome]:
    """Heartbeats that come late, and a clock that differs from this machine's."""
    times = [beat.received for beat in node.heartbeats]
    gap = max((later - earlier for earlier, later in pairwise(times)), default=0.0)
    every = max((beat.every for beat in node.heartbeats), default=0.0)
    if gap > 2 * every + 1:
        reason = (
            "Heartbeats come late: the worker starves (CPU, swap) or its connection hangs. Other workers log “missed "
            "heartbeat”. Celery has no setting worker_heartbeat: no timeout cures it."
        )
        figure = f"{gap:.1f} s between two, where {every:g} s are due"
        yield warn(reason, figure, fix=less_memory(facts, 2), subject=node.name)
    # one of them may have been held up on its way
    drift = min((beat.received - beat.sent for beat in node.heartbeats), key=abs, default=0.0)
    if abs(drift) > DRIFT_SECONDS:
        reason = (
            "The clocks of that machine and this one differ: ETAs, countdowns and expires come early or late there."
        )
        figure = f"{abs(drift):.0f} s {'behind' if drift > 0 else 'ahead'}"
        yield warn(reason, figure, fix="# on both machines:\ntimedatectl set-ntp true", subject=node.name)
