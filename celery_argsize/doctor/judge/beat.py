"""The checks of the group beat: whether what is scheduled can run and is sent, and by one Beat only.

Beat answers no questions. What it sent shows in what workers ran.
"""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.app import Entry, external_scheduler, is_of_app, read_schedule, word_of
from celery_argsize.doctor.checks import Check, fail, ok, unknown, warn
from celery_argsize.doctor.facts import GET_PSUTIL, Unavailable
from celery_argsize.doctor.judge.answering import unheard_names
from celery_argsize.doctor.judge.workers import consumed_queues, waiting_in
from celery_argsize.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import CeleryProcess, Facts, Node

#: Seconds that a Beat or a worker may need to start, and a task to be sent and run.
GRACE_SECONDS: Final = 10.0
#: How often a task must have been due before no run at all means something.
DUE_AT_LEAST: Final = 3.0

_NO_SCHEDULE: Final = "beat_schedule is empty: nothing needs a Beat."


def _entries(facts: Facts) -> list[Entry]:
    """What Beat is to send; raises ``Unavailable`` where another scheduler keeps that elsewhere."""
    if scheduler := external_scheduler(facts.app):
        raise Unavailable(f"{scheduler} keeps the schedule: it cannot be seen here")  # noqa: EM102, TRY003
    return [entry for entry in read_schedule(facts.app).values() if entry]


def _can_run(node: Node, task: str) -> bool:
    """Whether a worker knows *task*; all know Celery's own, which none lists."""
    return node.registered is None or task in node.registered or task.startswith("celery.")


def _schedule(facts: Facts) -> list[Outcome]:
    entries = _entries(facts)
    outcomes = [
        fail(
            "Beat cannot read this entry: it ends, or never sends it.",
            fix=f"{name!r}: {{'task': 'NAME.OF.TASK', 'schedule': 60.0}}",
            subject=name,
        )
        for name, entry in read_schedule(facts.app).items()
        if entry is None
    ]
    if not entries:
        return outcomes or [ok(_NO_SCHEDULE)]
    if facts.workers.get().nodes or not outcomes:
        outcomes += [outcome for entry in entries if (outcome := _not_run(facts, entry))]
    figure = counted(len(entries), "scheduled task")
    return outcomes or [ok("A live worker knows each task and consumes its queue.", figure)]


def _not_run(facts: Facts, entry: Entry) -> Outcome | None:
    queue, consumed, name = entry.queue, consumed_queues(facts), entry.name
    command = f"celery -A {word_of(facts.app)}"
    if not any(_can_run(node, entry.task) for node in facts.workers.get().nodes):
        reason = "No live worker knows the task (“Received unregistered task”)."
        return fail(reason, f"task {entry.task}", fix=f"{command} inspect registered", subject=name)
    if queue is None or queue in consumed:
        return None
    if silent := unheard_names(facts):
        return unknown(f"nobody consumes its queue {queue}, but {silent[0]} does not answer", subject=name)
    fix = f"{command} worker -Q {shlex.quote(','.join(sorted({*consumed, queue})))}"
    return fail("No live worker consumes its queue.", f"queue {queue}", fix=fix, subject=name)


def _sending(facts: Facts) -> list[Outcome]:
    by_task: dict[str, list[Entry]] = defaultdict(list)
    for entry in _entries(facts):
        by_task[entry.task].append(entry)
    if not by_task:
        return [ok(_NO_SCHEDULE)]
    beats = _beats(facts)
    outcomes = [outcome for entries in by_task.values() for outcome in _task(facts, entries, beats)]
    if alarms := [outcome for outcome in outcomes if outcome.verdict != "ok"]:
        return alarms
    if outcomes:
        total = counted(len(by_task), "scheduled task")
        return [ok("Scheduled tasks run.", f"{len(outcomes)} of {total}; {outcomes[0].figure}")]
    nothing = "nothing that live workers can run was due for long enough"
    if beats:
        return [ok(f"A Beat runs here; {nothing}.", f"pid {beats[0].pid}")]
    return [unknown(f"{nothing}, and {_none_here(facts)}")]


def _task(facts: Facts, entries: list[Entry], beats: list[CeleryProcess]) -> Iterator[Outcome]:
    """Judge by its runs whether a task is sent by any of *entries*, where that can be known."""
    task, queues = entries[0].task, {entry.queue for entry in entries}
    nodes = [node for node in facts.workers.get().live() if _can_run(node, task)]
    nodes = [node for node in nodes if None in queues or queues & {*node.queues}]
    # others may have run it as well
    if not nodes or not queues <= {None, *consumed_queues(facts)} or unheard_names(facts):
        return
    uptimes = [node.uptime or 0.0 for node in nodes]
    if runs := sum(node.totals.get(task, 0) for node in nodes):
        yield ok("", f"{task}: {counted(runs, 'run')} in {max(uptimes):,.0f} s")
        return
    # the time in which Beat and all workers were there, until they were asked
    asked = time.time() - facts.workers.get().listened
    seconds = min([*uptimes, *(asked - beat.created for beat in beats)])
    times = sum(entry.times_due(seconds, GRACE_SECONDS) for entry in entries)
    subject, figure = ", ".join(entry.name for entry in entries), f"0 runs in {seconds:.0f} s"
    if any(entry.every is None for entry in entries):
        if times >= 1:
            reason = "It was due by the clock, and no worker ran it. Does a Beat run?"
            yield warn(reason, figure, fix=_command(facts), subject=subject)
        return
    if times < DUE_AT_LEAST:
        return
    figure += f", due every {1 / sum(1 / entry.every for entry in entries if entry.every):g} s"
    waiting = sum(waiting_in(facts, queue) or 0 for queue in queues if queue)
    if waiting or any(0 < node.concurrency <= (node.active or 0) for node in nodes):
        figure += f"; {counted(waiting, 'message')} waiting"
        fix = f"# more workers, or a queue of its own:\ncelery -A {word_of(facts.app)} worker -Q QUEUE"
        yield warn("It does not run: the workers are busy.", figure, fix=fix, subject=subject)
        return
    cause = f"Beat (pid {beats[0].pid}) has another schedule or broker" if beats else "no Beat sends it"
    reason = f"It does not run, and its workers are free: {cause}, or all expire first."
    yield fail(reason, figure, fix=f"# one Beat, and one only:\n{_command(facts)}", subject=subject)


def _command(facts: Facts) -> str:
    return f"celery -A {word_of(facts.app)} beat -l info"


def _beats(facts: Facts) -> list[CeleryProcess]:
    """The Beats of this app on this machine."""
    processes = facts.host.found.processes if facts.host.found else ()
    ours = [beat for beat in processes if beat.beat and is_of_app(facts.app, beat.app)]
    beats = {beat.pid: beat for beat in ours if _at_database(facts, beat) is not False}
    return [beat for beat in beats.values() if beat.ppid not in beats]  # else it was started by `uv run`


def _at_database(facts: Facts, beat: CeleryProcess) -> bool | None:
    """Whether *beat* sends to the database that the workers read from; ``None``: not known."""
    if (workers := facts.workers.found) is None:
        return None
    if beat.pid in {node.pid for node in workers.nodes if node.hostname == facts.host.get().hostname}:
        return True  # a worker with -B, which answers there
    if beat.ports and beat.elsewhere(workers.port):
        return False
    ends = [workers.ends[end] for end in beat.ends if end in workers.ends]
    return any(ends) if ends else None


def _single(facts: Facts) -> Outcome:
    beats, scheduler = _beats(facts), external_scheduler(facts.app)
    if len(beats) > 1 and "redbeat" not in scheduler.lower():
        return _several(facts, beats, scheduler)
    if beats:  # of several with RedBeat, one sends: it has a lock
        return ok("One Beat sends from here. Others elsewhere are not seen.", f"pid {beats[0].pid}")
    if facts.conf.beat_schedule or scheduler:
        return unknown(_none_here(facts))
    return ok(_NO_SCHEDULE)


def _none_here(facts: Facts) -> str:
    if facts.host.found is None or facts.host.found.psutil_missing:
        return f"without psutil no Beat is seen here: {GET_PSUTIL}"
    return "no Beat of this app runs on this machine; others elsewhere are not seen"


def _several(facts: Facts, beats: list[CeleryProcess], scheduler: str) -> Outcome:
    """Judge Beats with the app's ``-A``, which those of another project may have."""
    pids = ", ".join(str(beat.pid) for beat in beats)
    figure = f"{len(beats)} Beats with this app's -A on this machine: pids {pids}"
    here = [beat.folder for beat in beats if _at_database(facts, beat)]
    apart = len({beat.folder for beat in beats} - {""}) == len(beats)
    if apart and len(here) <= 1:
        return unknown(f"{figure}, in different folders: maybe of different apps, which is not known")
    fix = f"# end all but one; under supervisor:\ncommand={_command(facts)}\nnumprocs=1"
    known = not scheduler or "django_celery_beat" in scheduler
    if any(folder and here.count(folder) > 1 for folder in here) and known:
        return fail("Two Beats send what is due: each task runs twice.", figure, fix=fix)
    reason = "Each task runs twice if all are of this app, which is not known."
    return warn(reason, figure, fix=fix)


CHECKS: Final = (
    Check("beat.schedule", "the tasks and queues of beat_schedule against live workers", _schedule),
    Check("beat.sending", "runs of scheduled tasks against how often they are due", _sending),
    Check("beat.single", "Beats on this machine", _single),
)
