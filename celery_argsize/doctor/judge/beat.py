"""The checks of the group beat: whether what is scheduled can run, and one Beat sends it.

Beat answers no questions. What it sent shows in what workers ran.
"""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.app import Entry, external_scheduler, is_of_app, read_schedule, word_of
from celery_argsize.doctor.checks import Check, fail, ok, unknown, warn
from celery_argsize.doctor.facts import Unavailable
from celery_argsize.doctor.judge.workers import consumed_queues, unheard_names, waiting_in
from celery_argsize.words import counted

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import CeleryProcess, Facts, Node

#: Seconds that a Beat, a worker or a task may take to start.
GRACE_SECONDS: Final = 10.0
#: How often a task must have been due before no run means something.
DUE_AT_LEAST: Final = 3.0

_NO_SCHEDULE: Final = "beat_schedule is empty: no Beat is needed."
_NONE_HERE: Final = "no Beat of this app is seen on this machine (that needs psutil)"


def _read(facts: Facts) -> dict[str, Entry | None]:
    """What Beat is to send; raises ``Unavailable`` where a scheduler keeps it elsewhere."""
    if scheduler := external_scheduler(facts.app):
        raise Unavailable(f"{scheduler} keeps the schedule: it cannot be seen here")  # noqa: EM102, TRY003
    return read_schedule(facts.app)


def _can_run(node: Node, task: str) -> bool:
    """Whether a worker knows *task*. All know Celery's own, which they do not list."""
    return node.registered is None or task in node.registered or task.startswith("celery.")


def _schedule(facts: Facts) -> list[Outcome]:
    schedule = _read(facts)
    if not schedule:
        return [ok(_NO_SCHEDULE)]
    fix = "# as Beat wants it: {'task': 'NAME', 'schedule': 60.0}"
    unread = [name for name, entry in schedule.items() if entry is None]
    outcomes = [fail("Beat cannot read this entry.", fix=fix, subject=name) for name in unread]
    if facts.workers.get().nodes or not unread:
        outcomes += filter(None, (_not_run(facts, entry) for entry in schedule.values() if entry))
    figure = counted(len(schedule), "scheduled task")
    return outcomes or [ok("Live workers know each task and consume its queue.", figure)]


def _not_run(facts: Facts, entry: Entry) -> Outcome | None:
    """Judge an entry that no live worker would run; ``None`` for others."""
    queue, consumed, name = entry.queue, consumed_queues(facts), entry.name
    command = f"celery -A {word_of(facts.app)}"
    if not any(_can_run(node, entry.task) for node in facts.workers.get().nodes):
        fix = f"{command} inspect registered"
        return fail("No live worker knows its task.", f"task {entry.task}", fix=fix, subject=name)
    if queue is None or queue in consumed:
        return None
    if silent := unheard_names(facts):
        return unknown(f"maybe {silent[0]} consumes queue {queue}, and does not answer", subject=name)
    fix = f"{command} worker -Q {shlex.quote(','.join(sorted({*consumed, queue})))}"
    return fail("No live worker consumes its queue.", f"queue {queue}", fix=fix, subject=name)


def _sending(facts: Facts) -> list[Outcome]:
    by_task: dict[str, list[Entry]] = defaultdict(list)
    for entry in filter(None, _read(facts).values()):
        by_task[entry.task].append(entry)
    if not by_task:
        return [ok(_NO_SCHEDULE)]
    beats = _beats(facts)
    outcomes = [outcome for entries in by_task.values() if (outcome := _task(facts, entries, beats))]
    if alarms := [outcome for outcome in outcomes if outcome.verdict != "ok"]:
        return alarms
    if outcomes:
        return [ok("Scheduled tasks run.", f"{len(outcomes)} of {len(by_task)}")]
    nothing = "nothing that can run was due for long enough"
    if beats:
        return [ok(f"A Beat runs here, and {nothing}.", f"pid {beats[0].pid}")]
    return [unknown(f"{nothing}, and {_NONE_HERE}")]


def _task(facts: Facts, entries: list[Entry], beats: list[CeleryProcess]) -> Outcome | None:
    """Judge by a task's runs whether its *entries* are sent; ``None``: not known."""
    task, queues = entries[0].task, {entry.queue for entry in entries}
    nodes = [node for node in facts.workers.get().live() if _can_run(node, task)]
    nodes = [node for node in nodes if None in queues or queues & {*node.queues}]
    # workers that do not answer may have run it
    if not nodes or not queues <= {None, *consumed_queues(facts)} or unheard_names(facts):
        return None
    if any(node.totals.get(task) for node in nodes):
        return ok("")
    # how long Beat and all workers were there when they were asked
    asked = time.time() - facts.workers.get().listened
    seconds = min([node.uptime or 0.0 for node in nodes] + [asked - beat.created for beat in beats])
    times = sum(entry.times_due(seconds, GRACE_SECONDS) for entry in entries)
    intervals = [entry.every for entry in entries if entry.every is not None]
    by_clock = len(intervals) < len(entries)
    if times < (1 if by_clock else DUE_AT_LEAST):
        return None
    subject, figure = ", ".join(entry.name for entry in entries), f"0 runs in {seconds:.0f} s"
    if by_clock:
        reason = "It was due, and no worker ran it. Does a Beat run?"
        return warn(reason, figure, fix=_command(facts), subject=subject)
    figure += f", due every {min(intervals):g} s"
    waiting = sum(waiting_in(facts, queue) or 0 for queue in queues if queue)
    if waiting or any(0 < node.concurrency <= (node.active or 0) for node in nodes):
        figure += f"; {counted(waiting, 'message')} waiting"
        fix = f"celery -A {word_of(facts.app)} worker -Q QUEUE"
        return warn("It does not run: the workers are busy.", figure, fix=fix, subject=subject)
    cause = f"Beat (pid {beats[0].pid}) sends other tasks" if beats else "no Beat sends it"
    reason = f"It does not run, and workers are free: {cause}, or all expire first."
    return fail(reason, figure, fix=_command(facts), subject=subject)


def _command(facts: Facts) -> str:
    return f"celery -A {word_of(facts.app)} beat -l info"


def _beats(facts: Facts) -> list[CeleryProcess]:
    """The Beats of this app on this machine."""
    processes = facts.host.value.processes if facts.host.value else ()
    ours = [beat for beat in processes if beat.beat and is_of_app(facts.app, beat.app)]
    beats = {beat.pid: beat for beat in ours if _at_database(facts, beat) is not False}
    return [beat for beat in beats.values() if beat.ppid not in beats]  # `uv run beat` is a parent, not another Beat


def _at_database(facts: Facts, beat: CeleryProcess) -> bool | None:
    """Whether *beat* sends to the database that the workers read from; ``None``: not known."""
    if (workers := facts.workers.value) is None:
        return None
    if beat.pid in {node.pid for node in workers.nodes if node.hostname == facts.host.get().hostname}:
        return True  # a worker with -B
    if beat.ports and beat.elsewhere(workers.port):
        return False
    ends = [workers.ends[end] for end in beat.ends if end in workers.ends]
    return any(ends) if ends else None


def _single(facts: Facts) -> Outcome:
    beats, scheduler = _beats(facts), external_scheduler(facts.app)
    if len(beats) > 1 and "redbeat" not in scheduler.lower():
        return _several(facts, beats, scheduler)
    if beats:  # RedBeats have a lock: one of them sends
        return ok("One Beat sends from here.", f"pid {beats[0].pid}")
    if facts.conf.beat_schedule or scheduler:
        return unknown(_NONE_HERE)
    return ok(_NO_SCHEDULE)


def _several(facts: Facts, beats: list[CeleryProcess], scheduler: str) -> Outcome:
    """Judge Beats with this ``-A``, which another project's Beats may have."""
    pids = ", ".join(str(beat.pid) for beat in beats)
    figure = f"{len(beats)} Beats with this app's -A on this machine: pids {pids}"
    folders = [beat.folder for beat in beats if _at_database(facts, beat)]
    apart = len({beat.folder for beat in beats} - {""}) == len(beats)
    if apart and len(folders) <= 1:
        return unknown(f"{figure}, in different folders: their apps are not known")
    fix = "# end all but one; under supervisor:\nnumprocs=1"
    together = any(folder and folders.count(folder) > 1 for folder in folders)
    if together and (not scheduler or "django_celery_beat" in scheduler):  # other schedulers may lock
        return fail("Each task runs twice.", figure, fix=fix)
    return warn("Each task runs twice if they are of one app, which is not known.", figure, fix=fix)


CHECKS: Final = (
    Check("beat.schedule", "tasks and queues of beat_schedule", _schedule),
    Check("beat.sending", "runs of scheduled tasks", _sending),
    Check("beat.single", "Beats on this machine", _single),
)
