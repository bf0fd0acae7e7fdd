"""Judges of what Celery keeps in Redis: messages that wait, messages that workers hold, results."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.checks import NotKnown, Outcome, ok, warn
from celery_argsize.doctor.redis_contents import RESULTS
from celery_argsize.doctor.redis_judging import ago, cli, each_server, size, version
from celery_argsize.doctor.spelling import setting
from celery_argsize.table import printable

if TYPE_CHECKING:
    from celery_argsize.doctor.facts import Facts
    from celery_argsize.doctor.redis_facts import ServerFacts

__all__ = ["queues", "results", "unacked"]

#: Messages in one queue. A worker that takes 10 a second needs a quarter of an hour for these.
LONG: Final = 10_000
#: Part of maxmemory that one queue may take.
HEAVY: Final = 0.10

#: A SCAN is bounded.
PARTLY: Final = "the Redis has too many keys to look for all queues of others"

#: Results that never expire, in the sample: with fewer, somebody kept them on purpose, and they weigh nothing.
LASTING: Final = 100

#: Seconds that a message may be overdue: workers look for those each 100 s, one after the other (kombu:
#: unacked_restore_interval, 10 s, times unacked_restore_throttle, 10).
GRACE: Final = 600.0

#: Seconds that results live, in a field report; Celery's default is a day.
EXPIRES: Final = 3600
#: Since this version, EXPIRE knows NX: only where there is no expiry yet.
CONDITIONAL: Final = (7, 0)


def queues(facts: Facts) -> list[Outcome]:
    """How long they are."""
    return each_server(facts, lambda server: _queues_of(facts, server), "queues", role="messages")


def _queues_of(facts: Facts, server: ServerFacts) -> list[Outcome]:
    if facts.where.app is None:
        return []
    long = [one for name in server.queues if (one := _long(facts, server, name))]
    if long:
        return long
    waiting = sum(server.queues.values())
    longest = max(server.queues, key=lambda name: server.queues[name], default="")
    most = f", the most in {longest}" if waiting else ""
    figure = f"{waiting:,} messages in {len(server.queues)} queue{'s' * (len(server.queues) != 1)}{most}"
    if server.contents.waiting.complete:
        return [ok("no queue is long", figure)]
    return [ok("no queue that the app names is long", f"{figure}; {PARTLY}")]


def _long(facts: Facts, server: ServerFacts, name: str) -> Outcome | None:
    """A warning, if this queue is long or heavy."""
    count, weight = server.queues[name], server.contents.waiting.weights.get(name, 0)
    room = int(server.info.get("maxmemory") or 0)
    heavy = bool(room) and weight > room * HEAVY
    if count < LONG and not heavy:
        return None
    workers = facts.workers.found
    takers = sum(name in node.queues for node in workers.nodes) if workers else 0
    about = f", about {size(weight)}" if weight else ""
    share = f", {weight / room:.0%} of maxmemory" if room and weight else ""
    taken = f"; {takers} worker{'s take' if takers != 1 else ' takes'} from it" if takers else ""
    reason = "more is sent than is done" if count >= LONG else "it fills the Redis"
    fix = (
        f"celery -A proj worker -Q {_quoted(name)}  # one more worker for it\n"
        f"celery -A proj inspect active_queues  # who takes from which queue\n"
        f"celery -A proj purge -Q {_quoted(name)}  # only if all of them may be lost"
    )
    return warn(f"{reason}{taken}", f"{count:,} messages{about}{share}", fix=fix, subject=f"queue {name}")


def _quoted(name: str) -> str:
    return shlex.quote(printable(name))


def unacked(facts: Facts) -> list[Outcome]:
    """Messages that workers took."""
    return each_server(facts, _unacked_of, "unacked", role="messages")


def _unacked_of(server: ServerFacts) -> Outcome | None:
    found = server.contents.unacked
    if found is None:
        return None
    oldest = f", the oldest for {ago(found.oldest)}" if found.held else ""
    figure = f"{found.held:,} messages held{oldest}"
    if not found.overdue or found.oldest <= found.visibility + GRACE:
        return ok("workers hold what they run or are to run next", figure)
    reason = (
        f"{found.overdue:,} are held for longer than the visibility timeout ({ago(found.visibility)}): the workers "
        "that took them are gone, and none runs that would put them back"
    )
    return warn(reason, figure, fix="celery -A proj worker  # it puts them back within minutes, and they run again")


def results(facts: Facts) -> list[Outcome]:
    """Whether they expire."""
    return each_server(facts, lambda server: _results_of(facts, server), "results", role="results")


def _results_of(facts: Facts, server: ServerFacts) -> Outcome:
    found = server.contents.results
    if found is None:
        message = "they were not looked at"
        raise NotKnown(message)
    figure = f"{found.lasting:,} of {found.sampled:,} {'results' if found.complete else 'sampled results'} never expire"
    if found.lasting < LASTING:
        return ok("results go by themselves", figure)
    reason = "results pile up; those that are there do not go by themselves, whatever the setting becomes"
    client = cli(server, "results")
    each = f'{client} EXPIRE "$key" {EXPIRES} NX'
    if version(server) < CONDITIONAL:
        each = f'if [ "$({client} TTL "$key")" = -1 ]; then {client} EXPIRE "$key" {EXPIRES}; fi'
    fix = (
        f"{setting(facts.where.app, 'result_expires', EXPIRES)}  # seconds; for those to come\n"
        f"# for those that are there:\n"
        f"{client} --scan --pattern '*{RESULTS}*' | while read -r key; do {each}; done"
    )
    return warn(reason, figure, fix=fix)
