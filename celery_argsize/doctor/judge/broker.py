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


def _reachable(facts: Facts) -> Outcome:
    workers = facts.workers.get()
    if workers.took is None:
        raise Unavailable(workers.no_control)
    longer = max(60, round(3 * facts.where.seconds))
    patient = f"celery -A {word_of(facts.app)} argsize doctor --timeout {longer}  # where it is slow"
    if error := workers.broker_error:
        fix = fix_for(facts.app, workers.broker, error)
        fix = f"{fix}\n{patient}" if NO_ANSWER in error else fix
        return fail(f"No task is sent or run: {error}.", workers.broker, fix=fix)
    shown = f", connected in {workers.took:.1f} s" if workers.took >= SHOWN_SECONDS else ""
    if workers.took >= SLOW_SECONDS:
        reason = "The broker is slow: whoever sends a task waits that long."
        return warn(reason, workers.broker + shown, fix=patient)
    return ok("The broker takes connections.", workers.broker + shown)


CHECKS: Final = (Check("broker.reachable", "a connection to the broker", _reachable, vital=True),)
