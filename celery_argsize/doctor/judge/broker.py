"""The check of the group broker: whether it takes connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.app import word_of
from celery_argsize.doctor.checks import Check, Outcome, fail, ok, warn
from celery_argsize.doctor.errors import fix_for
from celery_argsize.doctor.facts import Unavailable
from celery_argsize.doctor.redis_facts import NO_ANSWER

if TYPE_CHECKING:
    from celery_argsize.doctor.facts import Facts

#: Seconds to connect, which takes several round trips: from when they are shown, and from when they are too many.
SHOWN_SECONDS: Final = 0.5
SLOW_SECONDS: Final = 2.0


def _reachable(facts: Facts) -> list[Outcome]:
    workers = facts.workers.get()
    longer = max(60, round(3 * facts.where.seconds))
    patient = f"celery -A {word_of(facts.app)} argsize doctor --timeout {longer}  # where it is slow"

    def fix(url: str, why: str) -> str:
        lines = fix_for(facts.app, url, why)
        return f"{lines}\n{patient}" if NO_ANSWER in why else lines

    if workers.took is None:
        raise Unavailable(workers.no_control)
    if workers.broker_error:
        reason = f"No task is sent or run: {workers.broker_error}."
        return [fail(reason, workers.broker, fix=fix(workers.broker, workers.broker_error))]
    shown = f", connected in {workers.took:.1f} s" if workers.took >= SHOWN_SECONDS else ""
    outcomes = [ok("The broker takes connections.", workers.broker + shown)]
    if workers.took >= SLOW_SECONDS:
        reason = "The broker is slow: whoever sends a task waits that long."
        outcomes = [warn(reason, workers.broker + shown, fix=patient)]
    for url, why in workers.unreached.items():
        reason = f"It takes no connection: {why}. Messages that are left in it wait until it is back."
        outcomes.append(warn(reason, url, fix=fix(url, why), subject=url))
    return outcomes


CHECKS: Final = (Check("broker.reachable", "a connection to the broker", _reachable, vital=True),)
