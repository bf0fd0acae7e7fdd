"""The checks of the group beat: whether scheduled tasks can run, whether they are sent, and whether by one Beat only.

Beat answers no questions. What it sent shows in how often workers ran its tasks.
"""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.app import Entry, external_scheduler, is_of_app, read_schedule, word_of
from celery_argsize.doctor.checks import Check, fail, ok, unknown, warn
from celery_argsize.doctor.facts import GET_PSUTIL, Unavailable
from celery_argsize.doctor.judge.queues import consumed_queues, unheard_names, waiting_in
from celery_argsize.words import counted

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import CeleryProcess, Facts, Node

#: Seconds that a Beat or a worker may need to start, and a task to be sent and run.
GRACE_SECONDS: Final = 10.0
#: How often a task must have been due before no run at all means something.
DUE_AT_LEAST: Final = 3.0

_NO_SCHEDULE: Final = "beat_schedule is empty: nothing needs a Beat."


def _readable(facts: Facts) -> list[Entry]:
    """The entries of the schedule that Beat can read.

    Raises:
        Unavailable: a scheduler of another kind keeps them elsewhere.
    """
    if scheduler := external_scheduler(facts.app):
        message = f"{scheduler} keeps the schedule: it cannot be seen here"
        raise Unavailable(message)
    return [entry for entry in read_schedule(facts.app).values() if entry]


def _can_run(node: Node, task: str) -> bool:
    """Whether a worker knows *task*. None lists Celery's own, which all know."""
    return node.registered is None or task in node.registered or task.startswith("celery.")


def _schedule(facts: Facts) -> list[Outcome]:
    """Judge each entry by itself."""
    entries, workers = _readable(facts), facts.workers.get()
    unreadable = [name for name, entry in read_schedule(facts.app).items() if entry is None]
    outcomes = [
        fail(
            "This entry cannot be read: Beat ends when it comes to it, or never sends it.",
            "it needs a task, and a schedule that is a number of seconds, a timedelta, a crontab or the like",
            fix=f"# in beat_schedule:\n{name!r}: {{'task': 'NAME.OF.TASK', 'schedule': 60.0}}",
            subject=name,
        )
        for name in unreadable
    ]
    if not entries:
        return outcomes or [ok(_NO_SCHEDULE)]
    if workers.nodes:
        outcomes += [outcome for entry in entries if (outcome := _cannot_run(facts, entry))]
    elif not outcomes:
        workers.asked()  # raises, if there is more to say than that nobody answers
        return [unknown("no worker answers that could run what is due")]
    return outcomes or [ok("A live worker knows each task and consumes its queue.", counted(len(entries), "task"))]


def _cannot_run(facts: Facts, entry: Entry) -> Outcome | None:
    """Why no live worker runs what *entry* sends; ``None`` if one does."""
    celery, consumed = f"celery -A {word_of(facts.app)}", consumed_queues(facts)
    if not any(_can_run(node, entry.task) for node in facts.workers.get().live()):
        return fail(
            "No live worker knows the task that this entry sends: it is thrown away (“Received unregistered task”).",
            f"task {entry.task}",
            fix="# import its module in the worker, and see that the name in beat_schedule is the task's own:\n"
            f"{celery} inspect registered",
            subject=entry.name,
        )
    if entry.queue is None or entry.queue in consumed:
        return None
    if silent := unheard_names(facts):
        reason = f"no worker that answers consumes the queue {entry.queue}, and {silent[0]} does not answer"
        return unknown(reason, subject=entry.name)
    return fail(
        "No live worker consumes the queue that this entry is sent to.",
        f"task {entry.task}, queue {entry.queue}",
        fix=f"{celery} worker -Q {shlex.quote(','.join(sorted({*consumed, entry.queue})))}",
        subject=entry.name,
    )


@dataclass(frozen=True)
class _Runs:
    """How often a task ran in the workers that can run it. Which entry sent it cannot be told."""

    entries: list[Entry]
    rate: float | None
    """How often it is due in a second; ``None`` where an entry goes by the clock."""
    uptimes: list[float]
    """Seconds since each worker started."""
    total: int
    """Runs since then."""
    span: float
    """Seconds between two counts of all runs; 0 where they were counted once."""
    later: int
    """Runs between these counts."""
    busy: bool
    """Whether a worker has no process free for it."""

    @property
    def names(self) -> str:
        return ", ".join(entry.name for entry in self.entries)


def _runs(facts: Facts, entries: list[Entry]) -> list[_Runs]:
    """The runs of each task; none unless all workers answer, as another one may have run it."""
    nodes, consumed = facts.workers.get().live(), consumed_queues(facts)
    by_task: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries if not unheard_names(facts) else ():
        by_task[entry.task].append(entry)
    counts = []
    for task, senders in by_task.items():
        queues = {entry.queue for entry in senders}
        able = [node for node in nodes if _can_run(node, task) and (None in queues or queues & {*node.queues})]
        if able and queues <= {None, *consumed} and all(node.uptime is not None for node in able):
            counts.append(_counts(task, senders, able))
    return counts


def _counts(task: str, entries: list[Entry], nodes: list[Node]) -> _Runs:
    intervals = [entry.every for entry in entries]
    total, span = sum(node.totals.get(task, 0) for node in nodes), min(node.span for node in nodes)
    return _Runs(
        entries,
        rate=None if None in intervals else sum(1 / seconds for seconds in intervals if seconds),
        uptimes=[node.uptime or 0.0 for node in nodes],
        total=total,
        span=span,
        later=sum(node.later.get(task, 0) for node in nodes) - total if span else 0,
        busy=any(0 < node.concurrency <= (node.active or 0) for node in nodes),
    )


def _sending(facts: Facts) -> list[Outcome]:
    """Judge by their runs whether tasks that were due were sent."""
    entries = _readable(facts)
    if not entries:
        return [ok(_NO_SCHEDULE)]
    beats, tasks = _beats(facts), _runs(facts, entries)
    if outcomes := [outcome for runs in tasks if (outcome := _not_sent(facts, runs, beats))]:
        return outcomes
    if running := [runs for runs in tasks if (runs.later if runs.span else runs.total)]:
        # Fewer than due is no fault: a Beat or a laptop may have slept.
        runs, seconds = running[0], max(running[0].uptimes)
        due = f", due {counted(round(seconds * runs.rate), 'time')}" if runs.rate else ""
        figure = f"{runs.entries[0].task}: {counted(runs.total, 'run')} in {seconds:,.0f} s{due}"
        return [ok("Scheduled tasks run.", figure)]
    nothing = "of what live workers can run, nothing was due for long enough to see it"
    if beats:
        return [ok(f"A Beat runs here; {nothing}.", f"pid {beats[0].pid}")]
    return [unknown(f"{nothing}, and {_none_here(facts)}")]


def _not_sent(facts: Facts, runs: _Runs, beats: list[CeleryProcess]) -> Outcome | None:
    """What is wrong where a task was due and did not run."""
    ran = runs.total + runs.later
    # Only the time counts in which Beat and all workers were there. All runs were counted a span ago.
    beats_ages = [time.time() - runs.span - beat.created for beat in beats]
    seconds = min([*runs.uptimes, *beats_ages])
    times = sum(entry.times_due(seconds, GRACE_SECONDS) for entry in runs.entries)
    one_beat = f"# one Beat, and one only:\ncelery -A {word_of(facts.app)} beat -l info"
    if runs.rate is None:
        reason = "It was due by the clock and no worker ran it. Does a Beat run, and did it then?"
        figure = f"0 runs in {min(runs.uptimes):,.0f} s"
        return warn(reason, figure, fix=one_beat, subject=runs.names) if times and not ran else None
    if not runs.later and seconds > GRACE_SECONDS and runs.span * runs.rate >= DUE_AT_LEAST:
        seconds = runs.span
    elif ran or times < DUE_AT_LEAST:
        return None
    figure = f"0 runs in {seconds:.0f} s, due every {1 / runs.rate:g} s"
    waiting = sum(waiting_in(facts, queue) or 0 for queue in {entry.queue for entry in runs.entries} if queue)
    if waiting or runs.busy:
        reason = "It does not run though it is due: workers are busy, and what Beat sends waits for them, or expires."
        figure += f"; {waiting:,} message{' waits' if waiting == 1 else 's wait'}"
        fix = f"# more workers, or a queue of its own for it:\ncelery -A {word_of(facts.app)} worker -Q QUEUE"
        return warn(reason, figure, fix=fix, subject=runs.names)
    cause = f"Beat runs here (pid {beats[0].pid}), with another schedule or broker" if beats else "no Beat sends it"
    cause += ", or all expire first" if any(entry.expires for entry in runs.entries) else ""
    reason = f"It does not run though it is due, and its workers are free: {cause}."
    return fail(reason, figure, fix=one_beat, subject=runs.names)


def _beats(facts: Facts) -> list[CeleryProcess]:
    """The Beats of this app on this machine. A wrapper, such as ``uv run``, counts once with what it started."""
    processes = facts.host.found.processes if facts.host.found else ()
    beats = [process for process in processes if process.beat and is_of_app(facts.app, process.app)]
    beats = [beat for beat in beats if _at_database(facts, beat) is not False]
    pids = {beat.pid for beat in beats}
    return [beat for beat in beats if beat.ppid not in pids]


def _at_database(facts: Facts, beat: CeleryProcess) -> bool | None:
    """Whether *beat* sends to the database that the workers read from; ``None``: not known."""
    workers, host = facts.workers.found, facts.host.get()
    if workers is None:
        return None
    if beat.pid in {node.pid for node in workers.nodes if node.hostname == host.hostname}:
        return True  # a worker with -B, which answers there
    local = workers.local.get(beat.pid)
    # a Beat that has sent nothing yet has no connection at all
    return False if local and local.ports and local.elsewhere(workers.port) else workers.at_database(beat.pid)


def _single(facts: Facts) -> Outcome:
    """Judge whether several Beats run here."""
    beats, scheduler = _beats(facts), external_scheduler(facts.app)
    if "redbeat" in scheduler.lower():
        return ok("RedBeat has a lock of its own: one of several Beats sends.", f"{len(beats)} here")
    if len(beats) > 1:
        return _several(facts, beats, scheduler)
    if beats:
        unseen = "" if _at_database(facts, beats[0]) else " Whether it sends to this broker is not seen."
        reason = f"One Beat of this app on this machine. Others elsewhere are not seen.{unseen}"
        return ok(reason, f"pid {beats[0].pid}")
    if not facts.conf.beat_schedule and not scheduler:
        return ok(_NO_SCHEDULE)
    return unknown(_none_here(facts))


def _none_here(facts: Facts) -> str:
    host = facts.host.found
    if host is None or host.psutil_missing:
        return f"without psutil no Beat is seen on this machine: {GET_PSUTIL}"
    return "no Beat of this app runs on this machine; others elsewhere are not seen"


def _several(facts: Facts, beats: list[CeleryProcess], scheduler: str) -> Outcome:
    """Judge Beats that have the word after ``-A`` in common: staging may have that as well, and other projects."""
    figure = f"{len(beats)} Beats with this app's -A on this machine: pids {', '.join(str(beat.pid) for beat in beats)}"
    local = facts.workers.found.local if facts.workers.found else {}
    folders = [local[beat.pid].folder if beat.pid in local else "" for beat in beats]
    here = [folder for beat, folder in zip(beats, folders, strict=True) if _at_database(facts, beat)]
    proven = any(here.count(folder) > 1 for folder in here if folder)
    if len(here) < 2 and "" not in folders and len(folders) == len({*folders}):  # noqa: PLR2004
        reason = f"{figure}, each started in another folder: whether they are of one app is not known"
        return unknown(reason)
    fix = (
        "# find the others, on all machines, and end them; keep one Beat, and one only:\n"
        "ps aux | grep 'celery.*beat'\n"
        "# under supervisor, in [program:celery-beat]:\n"
        f"command=celery -A {word_of(facts.app)} beat -l info\nnumprocs=1"
    )
    # what a scheduler of someone else's does about it is not known
    if proven and (not scheduler or "django_celery_beat" in scheduler):
        return fail("Two Beats send everything that is due: each task runs twice.", figure, fix=fix)
    reason = "Whether all are of this app and send to its database is not known; if so, each task runs twice."
    return warn(reason, figure, fix=fix)


CHECKS: Final[tuple[Check, ...]] = (
    Check("beat.schedule", "the tasks and queues of beat_schedule against live workers", _schedule),
    Check("beat.sending", "runs of scheduled tasks against how often they are due", _sending),
    Check("beat.single", "Beats on this machine", _single),
)
