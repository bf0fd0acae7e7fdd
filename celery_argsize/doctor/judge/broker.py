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

#: Seconds to connect from which it warns.
SLOW_SECONDS: Final = 2.0


def _reachable(facts: Facts) -> Outcome:
    workers = facts.workers.get()
    if workers.connect_seconds is None:
        raise Unavailable(workers.control_error)
    longer = max(60, round(3 * facts.where.seconds))
    patient = f"celery -A {word_of(facts.app)} argsize doctor --timeout {longer}"
    if error := workers.broker_error:
        fix = fix_for(facts.app, workers.broker, error)
        fix += f"\n{patient}" if NO_ANSWER in error else ""
        return fail(f"No task is sent or run: {error}.", workers.broker, fix=fix)
    if workers.connect_seconds >= SLOW_SECONDS:
        figure = f"{workers.broker}, connected in {workers.connect_seconds:.1f} s"
        return warn("It is slow: whoever sends a task waits that long.", figure, fix=patient)
    return ok("It takes connections.", workers.broker)


CHECKS: Final = (Check("broker.reachable", "a connection to the broker", _reachable, vital=True),)
