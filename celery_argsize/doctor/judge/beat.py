"""The checks of the group beat: what is to be sent, whether it is, and whether by one Beat only.

Beat answers no questions. What it sent is seen by what the workers ran.
"""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from celery_argsize.doctor.app import Entry, entries, foreign_scheduler, is_of_app, unreadable, word_of
from celery_argsize.doctor.checks import Check, fail, ok, unknown, warn
from celery_argsize.doctor.facts import GET_PSUTIL, Unavailable
from celery_argsize.doctor.judge.answering import unheard_names
from celery_argsize.doctor.judge.queues import consumed_queues, waiting_in
from celery_argsize.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import CeleryProcess, Facts, Node

#: Seconds that a Beat or a worker may need to start, and a task to be sent and run.
GRACE_SECONDS: Final = 10.0
#: Times that something must have been due to conclude from no run at all.
DUE_AT_LEAST: Final = 3.0
#: The same, for how often it ran to say something: over a few seconds, and since the workers started.
RATE_AT_LEAST: Final = 5.0
RATE_SINCE_START_AT_LEAST: Final = 10.0
#: Runs for each time due, as two Beats make them: about 2, with what falls off at both ends.
TWICE: Final = (1.7, 2.4)

_START: Final = "celery -A {app} beat -l info"


class _Due(NamedTuple):
    """All entries that send one task: its runs are not told apart."""

    task: str
    entries: tuple[Entry, ...]
    nodes: tuple[Node, ...]
    """The workers that answer and consume a queue it is sent to."""

    @property
    def names(self) -> str:
        return ", ".join(entry.name for entry in self.entries)

    @property
    def rate(self) -> float | None:
        """Times due a second; ``None`` where one of the entries goes by the clock."""
        every = [entry.every for entry in self.entries]
        return None if None in every else sum(1 / seconds for seconds in every if seconds)

    @property
    def often(self) -> str:
        """How often it is due, in words."""
        return f"due every {1 / self.rate:g} s" if self.rate else "due by the clock"

    @property
    def runs(self) -> int:
        return sum(node.totals.get(self.task, 0) for node in self.nodes)

    @property
    def youngest(self) -> float:
        """Seconds in which all of its workers were there."""
        return min((node.uptime or 0.0 for node in self.nodes), default=0.0)

    @property
    def oldest(self) -> float:
        return max((node.uptime or 0.0 for node in self.nodes), default=0.0)

    @property
    def sample(self) -> tuple[int, float] | None:
        """Runs in the seconds in which they were counted twice; ``None`` where that was not done."""
        if not self.nodes or not all(node.span for node in self.nodes):
            return None
        runs = sum(node.later.get(self.task, 0) - node.totals.get(self.task, 0) for node in self.nodes)
        return runs, min(node.span for node in self.nodes)


def _due(facts: Facts, schedule: list[Entry]) -> list[_Due]:
    """What can be judged: sent to a queue that a live worker consumes, and known to one of these."""
    nodes, consumed, deaf = facts.workers.get().live(), consumed_queues(facts), unheard_names(facts)
    by_task: dict[str, list[Entry]] = defaultdict(list)
    for entry in schedule:
        by_task[entry.task].append(entry)
    found = []
    for task, same in by_task.items():
        if any(entry.queue is not None and entry.queue not in consumed for entry in same):
            continue
        queues = {entry.queue for entry in same}
        takers = [node for node in nodes if None in queues or queues & {*node.queues}]
        takers = [node for node in takers if knows(node, task)]
        # a worker that does not say how long it runs, or does not answer, may have run all of it
        if takers and all(node.uptime is not None for node in takers) and not deaf:
            found.append(_Due(task, tuple(same), tuple(takers)))
    return found


def _beats(facts: Facts) -> list[CeleryProcess]:
    """The Beats of this app on this machine. One that another one started is the same: a wrapper and what it wraps."""
    processes = facts.host.found.processes if facts.host.found else ()
    beats = [process for process in processes if process.beat and is_of_app(facts.app, process.app)]
    beats = [beat for beat in beats if at_database(facts, beat) is not False]
    return [beat for beat in beats if beat.ppid not in {other.pid for other in beats}]


# --- beat.sending


def _sending(facts: Facts) -> list[Outcome]:
    schedule = schedule_of(facts)
    if not schedule:
        return [ok(NO_SCHEDULE)]
    beats = _beats(facts)
    due = _due(facts, schedule)
    troubles = [outcome for one in due if (outcome := _not_sent(facts, one, beats))]
    if troubles:
        return troubles
    ran = [one for one in due if (one.sample[0] if one.sample else one.runs)]
    if ran:
        names = sum(len(one.entries) for one in ran)
        return [ok("Scheduled tasks run.", f"{names} of {counted_entries(len(schedule))}; {_told(ran[0])}")]
    if beats:
        return [
            ok(
                "A Beat runs here. Of what live workers can run, nothing was due for long enough to see it.",
                f"pid {beats[0].pid}",
            )
        ]
    return [
        unknown(
            "of what live workers can run, nothing was due for long enough; of Beats, "
            f"{_none_here(facts)}; whether one runs elsewhere cannot be told"
        )
    ]


def _told(due: _Due) -> str:
    """Runs, and how many there should be about: no verdict, as Beat or a laptop may have slept for a while."""
    times = f", due {counted(round(due.oldest * due.rate), 'time')}" if due.rate else ""
    return f"{due.task}: {counted(due.runs, 'run')} in {due.oldest:,.0f} s{times}"


def _not_sent(facts: Facts, due: _Due, beats: list[CeleryProcess]) -> Outcome | None:
    """Trouble, where it was due and did not run."""
    # A Beat that is seen counts from its own start, as with a fresh schedule; till the workers were first asked.
    span = due.sample[1] if due.sample else 0.0
    seconds = min([due.youngest, *(time.time() - span - beat.created for beat in beats)])
    times = sum(entry.due(seconds, GRACE_SECONDS) for entry in due.entries)
    if due.sample and due.rate and not due.sample[0] and seconds > GRACE_SECONDS and span * due.rate >= DUE_AT_LEAST:
        return _missing(facts, due, f"0 runs in {span:.0f} s, {due.often}", beats)
    if due.runs or (due.sample and due.sample[0]):
        return None
    if due.rate is None:
        return _overdue(facts, due) if times else None
    return _missing(facts, due, f"0 runs in {seconds:.0f} s, {due.often}", beats) if times >= DUE_AT_LEAST else None


def _missing(facts: Facts, due: _Due, figure: str, beats: list[CeleryProcess]) -> Outcome:
    waiting = sum(waiting_in(facts, queue) or 0 for queue in {entry.queue for entry in due.entries} if queue)
    busy = any(node.active is not None and 0 < node.concurrency <= node.active for node in due.nodes)
    if waiting or busy:
        return warn(
            "It does not run though it is due: the workers are busy, and what Beat sends waits for them, or expires.",
            f"{figure}; {waiting:,} message{' waits' if waiting == 1 else 's wait'}",
            fix=f"# more workers, or a queue of its own for it:\ncelery -A {word_of(facts.app)} worker -Q QUEUE",
            subject=due.names,
        )
    here = f"Beat runs here (pid {beats[0].pid}), with another schedule or broker" if beats else "no Beat sends it"
    here += ", or all expire first" if any(entry.expires for entry in due.entries) else ""
    return fail(
        f"It does not run though it is due, and its workers are free: {here}.",
        figure,
        fix=f"# one Beat, and one only:\n{_START.format(app=word_of(facts.app))}",
        subject=due.names,
    )


def _overdue(facts: Facts, due: _Due) -> Outcome:
    return warn(
        "It was due by the clock since its workers started, and none of them ran it. Does a Beat run, and did it then?",
        f"0 runs in {due.youngest:,.0f} s",
        fix=f"# one Beat, and one only:\n{_START.format(app=word_of(facts.app))}",
        subject=due.names,
    )


# --- beat.single


def _single(facts: Facts) -> Outcome:
    beats, scheduler = _beats(facts), foreign_scheduler(facts.app)
    if "redbeat" in scheduler.lower():
        return ok("RedBeat has a lock of its own: one of several Beats sends.", f"{len(beats)} here")
    ratios = _ratios(facts)
    # where what is due runs once all the same, the second one has a broker of its own
    if len(beats) > 1 and not any(ratio.sampled and ratio.value < TWICE[0] for ratio in ratios):
        return _several(facts, beats, ratios)
    if ratios:
        return _by_runs(facts, ratios)
    if beats:
        told = "" if at_database(facts, beats[0]) else " Whether it sends to this broker is not seen."
        return ok(f"One Beat of this app on this machine. Others elsewhere are not seen.{told}", f"pid {beats[0].pid}")
    if not facts.conf.beat_schedule and not scheduler:
        return ok(NO_SCHEDULE)
    return unknown(f"nothing is due often enough to tell one Beat from two, and {_none_here(facts)}")


def _none_here(facts: Facts) -> str:
    """What is known of Beats on this machine, where none is seen."""
    if facts.host.found is None or facts.host.found.psutil_missing:
        return f"without psutil none is seen on this machine: {GET_PSUTIL}"
    return "none of this app runs on this machine"


def _several(facts: Facts, beats: list[CeleryProcess], ratios: list[_Ratio]) -> Outcome:
    """What they have in common is a word, and maybe a port: that alone is no proof."""
    scheduler, like = foreign_scheduler(facts.app), likeness(facts, beats)
    pids = ", ".join(str(beat.pid) for beat in beats)
    figure = f"{len(beats)} Beats with this app's -A on this machine: pids {pids}"
    # what another scheduler does about it is not known
    if _doubled(ratios) or (like == "same" and (not scheduler or "django_celery_beat" in scheduler)):
        return _two(facts, "; ".join([figure, *(ratio.figure for ratio in ratios[:2])]), sure=True)
    if like == "apart":
        return unknown(f"{figure}, each started in another folder: whether they are of one app is not known")
    reason = "Whether all are of this app and send to its database is not known; if so, each task runs twice."
    return _two(facts, figure, sure=False)._replace(reason=reason)


def _ratios(facts: Facts) -> list[_Ratio]:
    try:
        return [ratio for one in _due(facts, schedule_of(facts)) if (ratio := _ratio(facts, one)) is not None]
    except Unavailable:  # then the processes say what they can
        return []


def _by_runs(facts: Facts, ratios: list[_Ratio]) -> Outcome:
    """Two Beats make all runs twice as many: one task alone may be sent by hand as well."""
    least = min(ratios, key=lambda ratio: ratio.value)
    if not _doubled(ratios):
        return ok("What is due is not sent twice.", least.figure)
    figure = "; ".join(ratio.figure for ratio in ratios[:3])
    return _two(facts, figure, sure=sum(ratio.sampled for ratio in ratios) > 1)


def _doubled(ratios: list[_Ratio]) -> bool:
    return bool(ratios) and all(TWICE[0] <= ratio.value <= TWICE[1] for ratio in ratios)


class _Ratio(NamedTuple):
    """Runs for each time that a task was due."""

    value: float
    figure: str
    sampled: bool
    """Whether just now; else since the workers started, with what had waited for them."""


def _ratio(facts: Facts, due: _Due) -> _Ratio | None:
    """``None`` where it was due too seldom to say."""
    if due.rate is None:
        return None
    if due.sample is not None and due.sample[1] * due.rate >= RATE_AT_LEAST:
        runs, span = due.sample
        # what had waited may be worked off in these seconds
        if not runs or any(waiting_in(facts, entry.queue) for entry in due.entries if entry.queue):
            return None
        return _Ratio(
            runs / (span * due.rate), f"{due.task}: {counted(runs, 'run')} in {span:.1f} s, {due.often}", sampled=True
        )
    times = due.oldest * due.rate
    if times < RATE_SINCE_START_AT_LEAST or not due.runs:
        return None
    figure = f"{due.task}: {counted(due.runs, 'run')} in {due.oldest:,.0f} s, {due.often}"
    return _Ratio(due.runs / times, figure, sampled=False)


def _two(facts: Facts, figure: str, *, sure: bool) -> Outcome:
    fix = (
        "# find the others, on all machines, and end them; keep one Beat, and one only:\n"
        "ps aux | grep 'celery.*beat'\n"
        "# under supervisor, in [program:celery-beat]:\n"
        f"command={_START.format(app=word_of(facts.app))}\nnumprocs=1"
    )
    if sure:
        return fail("Two Beats send everything that is due: each task runs twice.", figure, fix=fix)
    reason = "It looks like two Beats, which run each task twice. It may also be sent by hand, or late ones caught up."
    return warn(reason, figure, fix=fix)


NO_SCHEDULE: Final = "beat_schedule is empty: nothing needs a Beat."


def schedule_of(facts: Facts) -> list[Entry]:
    """What Beat is to send.

    Raises:
        Unavailable: it is kept elsewhere.
    """
    scheduler = foreign_scheduler(facts.app)
    if scheduler:
        message = f"{scheduler} keeps the schedule: it cannot be seen here"
        raise Unavailable(message)
    return entries(facts.app)


def knows(node: Node, task: str) -> bool:
    """Workers do not tell of Celery's own tasks: all have them."""
    return node.registered is None or task in node.registered or task.startswith("celery.")


def schedule_check(facts: Facts) -> list[Outcome]:
    """Whether each entry can be read, and a live worker knows its task and consumes its queue."""
    schedule = schedule_of(facts)
    troubles = [
        fail(
            "This entry cannot be read: Beat ends when it comes to it, or never sends it.",
            "it needs a task, and a schedule that is a number of seconds, a timedelta, a crontab or the like",
            fix=f"# in beat_schedule:\n{name!r}: {{'task': 'NAME.OF.TASK', 'schedule': 60.0}}",
            subject=name,
        )
        for name in unreadable(facts.app)
    ]
    if not schedule:
        return troubles or [ok(NO_SCHEDULE)]
    found = facts.workers.get()
    if troubles and (found.no_control or found.broker_error or not found.nodes):
        return troubles
    if not found.asked().nodes:
        return [unknown(f"{counted_entries(len(schedule))}, and no worker answers that could run what is due")]
    consumed = consumed_queues(facts)
    troubles += [outcome for entry in schedule if (outcome := _unready(facts, entry, consumed))]
    return troubles or [ok("A live worker knows each task and consumes its queue.", counted_entries(len(schedule)))]


def counted_entries(number: int) -> str:
    """How many entries."""
    return f"{number:,} {'entry' if number == 1 else 'entries'}"


def _unready(facts: Facts, entry: Entry, consumed: frozenset[str]) -> Outcome | None:
    nodes = facts.workers.get().live()
    if not any(knows(node, entry.task) for node in nodes):
        return fail(
            "No live worker knows the task that this entry sends: each message is thrown away (“Received unregistered "
            "task”).",
            f"task {entry.task}",
            fix="# import its module in the worker, and see that the name in beat_schedule is the task's own:\n"
            f"celery -A {word_of(facts.app)} inspect registered",
            subject=entry.name,
        )
    if entry.queue is not None and entry.queue not in consumed:
        if deaf := unheard_names(facts):
            reason = f"no worker that answers consumes the queue {entry.queue}, and {deaf[0]} does not answer"
            return unknown(reason, subject=entry.name)
        return fail(
            "No live worker consumes the queue that this entry is sent to.",
            f"task {entry.task}, queue {entry.queue}",
            fix=f"celery -A {word_of(facts.app)} worker -Q {shlex.quote(','.join(sorted({*consumed, entry.queue})))}",
            subject=entry.name,
        )
    return None


def at_database(facts: Facts, beat: CeleryProcess) -> bool | None:
    """Whether *beat* sends to the very database that the workers read, not just to its port; ``None``: not known."""
    found, host = facts.workers.found, facts.host.found
    if found is None or host is None:
        return None
    if beat.pid in {node.pid for node in found.nodes if node.hostname == host.hostname}:
        return True  # a worker with -B, which answers there
    # a Beat that has sent nothing yet has no connection at all
    return False if beat.ports and beat.elsewhere(found.port) else found.at_database(beat)


def likeness(facts: Facts, beats: Sequence[CeleryProcess]) -> Literal["same", "maybe", "apart"]:
    """``same``: two of *beats* are known to be at the database, and were started in one folder.

    ``apart``: each was started in a folder of its own, and no two are known to be at the database.
    """
    folders = [beat.folder for beat in beats]
    known = [folder for beat, folder in zip(beats, folders, strict=True) if at_database(facts, beat)]
    seen = [folder for folder in known if folder]
    if len(seen) > len({*seen}):
        return "same"
    return "maybe" if len(known) > 1 or "" in folders or len(folders) > len({*folders}) else "apart"


CHECKS: Final[tuple[Check, ...]] = (
    Check("beat.schedule", "the tasks and queues of beat_schedule against live workers", schedule_check),
    Check("beat.sending", "runs of scheduled tasks against how often they are due", _sending),
    Check("beat.single", "Beats on this machine, and runs above what is due", _single),
)
