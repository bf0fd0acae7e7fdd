"""The checks of the group beat: whether what is scheduled can run, whether it is sent, and whether by one Beat only.

Beat answers no questions. What it sent shows in how often workers ran its tasks.
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
from celery_argsize.doctor.judge.queues import consumed_queues, waiting_in
from celery_argsize.words import counted

if TYPE_CHECKING:
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
        message = f"{scheduler} keeps the schedule: it cannot be seen here"
        raise Unavailable(message)
    return [entry for entry in read_schedule(facts.app).values() if entry]


def _can_run(node: Node, task: str) -> bool:
    """Whether a worker knows *task*. None lists Celery's own, which all know."""
    return node.registered is None or task in node.registered or task.startswith("celery.")


def _schedule(facts: Facts) -> list[Outcome]:
    entries = _entries(facts)
    outcomes = [
        fail(
            "Beat cannot read this entry: it ends when it comes to it, or never sends it.",
            "it needs a task and a schedule: seconds, a timedelta, a crontab or the like",
            fix=f"# in beat_schedule:\n{name!r}: {{'task': 'NAME.OF.TASK', 'schedule': 60.0}}",
            subject=name,
        )
        for name, entry in read_schedule(facts.app).items()
        if entry is None
    ]
    if not entries:
        return outcomes or [ok(_NO_SCHEDULE)]
    if facts.workers.get().nodes:
        outcomes += [outcome for entry in entries if (outcome := _not_run(facts, entry))]
    elif not outcomes:
        facts.workers.get().live()  # raises, with the reason
    figure = counted(len(entries), "scheduled task")
    return outcomes or [ok("A live worker knows each task and consumes its queue.", figure)]


def _not_run(facts: Facts, entry: Entry) -> Outcome | None:
    """Why no live worker runs what *entry* sends; ``None`` if one does."""
    queue, consumed = entry.queue, consumed_queues(facts)
    figure = f"task {entry.task}, queue {queue or 'not known'}"
    command = f"celery -A {word_of(facts.app)}"
    if not any(_can_run(node, entry.task) for node in facts.workers.get().live()):
        reason = "No live worker knows its task: messages are thrown away (“Received unregistered task”)."
        fix = "# import its module in the worker, and see that beat_schedule has the task's own name:\n"
        return fail(reason, figure, fix=f"{fix}{command} inspect registered", subject=entry.name)
    if queue is None or queue in consumed:
        return None
    if silent := unheard_names(facts):
        reason = f"nobody who answers consumes its queue {queue}, and {silent[0]} does not answer"
        return unknown(reason, subject=entry.name)
    fix = f"{command} worker -Q {shlex.quote(','.join(sorted({*consumed, queue})))}"
    return fail("No live worker consumes the queue that it is sent to.", figure, fix=fix, subject=entry.name)


def _sending(facts: Facts) -> list[Outcome]:
    by_task: dict[str, list[Entry]] = defaultdict(list)
    for entry in _entries(facts):
        by_task[entry.task].append(entry)
    if not by_task:
        return [ok(_NO_SCHEDULE)]
    beats = _beats(facts)
    outcomes = [outcome for same in by_task.values() if (outcome := _task(facts, same, beats))]
    running = [outcome for outcome in outcomes if outcome.verdict == "ok"]
    if len(running) < len(outcomes):
        return [outcome for outcome in outcomes if outcome.verdict != "ok"]
    if running:
        total = counted(len(by_task), "scheduled task")
        return [ok("Scheduled tasks run.", f"{len(running)} of {total}; {running[0].figure}")]
    nothing = "of what live workers can run, nothing was due for long enough to see it"
    if beats:
        return [ok(f"A Beat runs here; {nothing}.", f"pid {beats[0].pid}")]
    return [unknown(f"{nothing}, and {_none_here(facts)}")]


def _task(facts: Facts, entries: list[Entry], beats: list[CeleryProcess]) -> Outcome | None:
    """Judge by its runs whether a task is sent, by any of its *entries*; ``None`` where that cannot be told."""
    task, nodes = entries[0].task, _able(facts, entries)
    if not nodes:
        return None
    intervals = [entry.every for entry in entries]
    rate = None if None in intervals else sum(1 / every for every in intervals if every)
    uptimes = [node.uptime or 0.0 for node in nodes]
    runs = sum(node.totals.get(task, 0) for node in nodes)
    # runs are counted again, a span later, where something is due that often
    span = min(node.span for node in nodes)
    later = sum(node.later.get(task, 0) for node in nodes) - runs if span else 0
    if later if span else runs:
        return ok("", f"{task}: {counted(runs, 'run')} in {max(uptimes):,.0f} s")
    # the time in which Beat and all workers were there, till the first count
    seconds = min([*uptimes, *(time.time() - span - beat.created for beat in beats)])
    times = sum(entry.times_due(seconds, GRACE_SECONDS) for entry in entries)
    if rate is None:
        reason = "It was due by the clock, and no worker ran it. Does a Beat run, and did it then?"
        names, figure = _names(entries), f"0 runs in {min(uptimes):,.0f} s"
        return warn(reason, figure, fix=_command(facts), subject=names) if times and not runs else None
    if seconds > GRACE_SECONDS and span * rate >= DUE_AT_LEAST:
        seconds = span
    elif runs or times < DUE_AT_LEAST:
        return None
    figure = f"0 runs in {seconds:.0f} s, due every {1 / rate:g} s"
    busy = any(0 < node.concurrency <= (node.active or 0) for node in nodes)
    return _not_sent(facts, entries, beats, figure, busy=busy)


def _able(facts: Facts, entries: list[Entry]) -> list[Node]:
    """The workers that can run a task; none where others may have run it as well."""
    queues = {entry.queue for entry in entries}
    if not queues <= {None, *consumed_queues(facts)} or unheard_names(facts):
        return []
    live = [node for node in facts.workers.get().live() if _can_run(node, entries[0].task)]
    nodes = [node for node in live if None in queues or queues & {*node.queues}]
    return nodes if all(node.uptime is not None for node in nodes) else []


def _not_sent(facts: Facts, entries: list[Entry], beats: list[CeleryProcess], figure: str, *, busy: bool) -> Outcome:
    """Why a task does not run that is due at intervals. *busy*: a worker has no process free."""
    queues = {entry.queue for entry in entries if entry.queue}
    if (waiting := sum(waiting_in(facts, queue) or 0 for queue in queues)) or busy:
        reason = "It is due and does not run: the workers are busy, and what Beat sends waits or expires."
        figure += f"; {waiting:,} message{' waits' if waiting == 1 else 's wait'}"
        fix = f"# more workers, or a queue of its own:\ncelery -A {word_of(facts.app)} worker -Q QUEUE"
        return warn(reason, figure, fix=fix, subject=_names(entries))
    cause = f"Beat runs here (pid {beats[0].pid}), with another schedule or broker" if beats else "no Beat sends it"
    cause += ", or all expire first" if any(entry.expires for entry in entries) else ""
    reason = f"It is due and does not run, and its workers are free: {cause}."
    return fail(reason, figure, fix=f"# one Beat, and one only:\n{_command(facts)}", subject=_names(entries))


def _names(entries: list[Entry]) -> str:
    return ", ".join(entry.name for entry in entries)


def _command(facts: Facts) -> str:
    return f"celery -A {word_of(facts.app)} beat -l info"


def _beats(facts: Facts) -> list[CeleryProcess]:
    """The Beats of this app on this machine. ``uv run`` counts once with the Beat that it started."""
    processes = facts.host.found.processes if facts.host.found else ()
    beats = [beat for beat in processes if beat.beat and is_of_app(facts.app, beat.app)]
    beats = [beat for beat in beats if _at_database(facts, beat) is not False]
    pids = {beat.pid for beat in beats}
    return [beat for beat in beats if beat.ppid not in pids]


def _at_database(facts: Facts, beat: CeleryProcess) -> bool | None:
    """Whether *beat* sends to the database that the workers read from; ``None``: not known."""
    workers, host = facts.workers.found, facts.host.get()
    if workers is None:
        return None
    if (host.hostname, beat.pid) in {(node.hostname, node.pid) for node in workers.nodes}:
        return True  # a worker with -B, which answers there
    # a Beat that has sent nothing yet has no connection at all
    return False if beat.ports and beat.elsewhere(workers.port) else workers.at_database(beat)


def _single(facts: Facts) -> Outcome:
    beats, scheduler = _beats(facts), external_scheduler(facts.app)
    if "redbeat" in scheduler.lower():
        return ok("RedBeat has a lock of its own: one of several Beats sends.", f"{len(beats)} here")
    if len(beats) > 1:
        return _several(facts, beats, scheduler)
    if beats:
        reason = "One Beat of this app on this machine. Others elsewhere are not seen."
        reason += "" if _at_database(facts, beats[0]) else " Whether it sends to this broker is not seen."
        return ok(reason, f"pid {beats[0].pid}")
    if facts.conf.beat_schedule or scheduler:
        return unknown(_none_here(facts))
    return ok(_NO_SCHEDULE)


def _none_here(facts: Facts) -> str:
    if facts.host.found is None or facts.host.found.psutil_missing:
        return f"without psutil no Beat is seen on this machine: {GET_PSUTIL}"
    return "no Beat of this app runs on this machine; others elsewhere are not seen"


def _several(facts: Facts, beats: list[CeleryProcess], scheduler: str) -> Outcome:
    """Judge several Beats with the app's ``-A``. Those of staging or of another project may have it as well."""
    pids = ", ".join(str(beat.pid) for beat in beats)
    figure = f"{len(beats)} Beats with this app's -A on this machine: pids {pids}"
    here = [beat.folder for beat in beats if _at_database(facts, beat)]
    apart = len({beat.folder for beat in beats} - {""}) == len(beats)
    if apart and len(here) <= 1:
        return unknown(f"{figure}, each started in another folder: whether they are of one app is not known")
    fix = (
        "# find the others, on all machines, and end them; keep one Beat, and one only:\n"
        "ps aux | grep 'celery.*beat'\n"
        "# under supervisor, in [program:celery-beat]:\n"
        f"command={_command(facts)}\nnumprocs=1"
    )
    same = any(here.count(folder) > 1 for folder in here if folder)
    # what other schedulers do about it is not known
    if same and (not scheduler or "django_celery_beat" in scheduler):
        return fail("Two Beats send everything that is due: each task runs twice.", figure, fix=fix)
    reason = "Whether all send to this app's database is not known; if so, each task runs twice."
    return warn(reason, figure, fix=fix)


CHECKS: Final = (
    Check("beat.schedule", "the tasks and queues of beat_schedule against live workers", _schedule),
    Check("beat.sending", "runs of scheduled tasks against how often they are due", _sending),
    Check("beat.single", "Beats on this machine", _single),
)
