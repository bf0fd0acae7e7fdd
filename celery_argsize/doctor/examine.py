"""``diagnose``: takes all looks at the same time, and has every check judge what they saw.

A look that fails, or takes too long, leaves unknown the checks that need it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.doctor.checks import CheckResult, Diagnosis, unknown
from celery_argsize.doctor.facts import MORE_TIME, Facts, LookResult, Scope, Unavailable, raised_at
from celery_argsize.doctor.judge import beat, broker, host, monitor, redis, settings, workers
from celery_argsize.doctor.look.host import look_at_host
from celery_argsize.doctor.look.monitor import look_at_monitor
from celery_argsize.doctor.look.redis import look_at_redis
from celery_argsize.doctor.look.workers import look_at_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from celery import Celery

    from celery_argsize.doctor.checks import Check

_GROUPS: Final = (redis, settings, broker, workers, beat, monitor, host)

#: Every check, in the order in which they are shown.
CHECKS: Final = tuple(check for group in _GROUPS for check in group.CHECKS)

#: Seconds that looking may take, by default.
SECONDS: Final = 10.0


#: Field of ``Facts`` → the look that fills it.
LOOKS: Final[Mapping[str, Callable[[Scope], Any]]] = {
    "redis": look_at_redis,
    "workers": look_at_workers,
    "monitor": look_at_monitor,
    "host": look_at_host,
}


def diagnose(
    app: Celery | None = None,
    *,
    seconds: float = SECONDS,
    max_clients: int | None = None,
    **given: str | None,
) -> Diagnosis:
    """Say what is wrong with the Redis, the settings, the workers, the monitor and this machine.

    It only looks, and raises no error for what it finds.

    Args:
        app: without one, only the Redis with the figures and this machine are looked at.
        seconds: how long looking may take. What has not answered by then is unknown.
        max_clients: how many clients the Redis takes; hosted ones do not always tell.
        given: ``redis_url``, ``key_prefix``, ``app_name``, as for ``get_size_summary``.
    """
    broken = load(app) if app is not None else ""
    usable = None if _error(lambda: app and app.conf.broker_url) else app
    facts = look_around(Scope(usable, given, seconds, max_clients, broken))
    return Diagnosis(str(getattr(app, "main", None) or ""), time.time(), judge(facts))


def load(app: Celery) -> str:
    """Load the app and its tasks, as a worker does; the reason if that failed, else empty."""
    steps = (lambda: app.conf.broker_url, app.finalize, app.loader.import_default_modules)
    return next((error for step in steps if (error := _error(step))), "")


def _error(step: Callable[[], Any]) -> str:
    """The reason why *step* failed; empty: it did not."""
    try:
        step()
    except ModuleNotFoundError as exc:
        return f"there is no module {exc.name}"
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - the app's own code may raise anything
        return raised_at(exc)
    return ""


def look_around(where: Scope, looks: Mapping[str, Callable[[Scope], Any]] = LOOKS) -> Facts:
    """Take all *looks* at the same time, for *where.seconds* at most."""
    late = f"no answer within {where.seconds:g} s; {MORE_TIME}"
    results: dict[str, LookResult[Any]] = dict.fromkeys(looks, LookResult(why_not=late))

    def take(name: str, look: Callable[[Scope], Any]) -> None:
        # without the app, another Redis than its own would be looked at
        blind = where.app is None and where.broken and name != "host"
        try:
            results[name] = LookResult(why_not=where.why_no_app) if blind else LookResult(look(where))
        except Exception as exc:  # noqa: BLE001 - one look that fails must not hide the others
            results[name] = LookResult(why_not=_why(exc, "looking"))

    # daemon threads: one that hangs does not keep the process from ending
    threads = [threading.Thread(target=take, args=item, daemon=True) for item in looks.items()]
    deadline = time.monotonic() + where.seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return Facts(where, **results)


def judge(facts: Facts, checks: Iterable[Check] = CHECKS) -> tuple[CheckResult, ...]:
    """The outcomes of *checks*. One that fails is unknown, and hides no other."""
    results = []
    for check in checks:
        try:
            outcomes = check.outcomes(facts)
        except Exception as exc:  # noqa: BLE001 - a fault of ours
            outcomes = [unknown(_why(exc, "this check"))]
        results += [CheckResult(check, outcome) for outcome in outcomes]
    return tuple(results)


def _why(exc: Exception, step: str) -> str:
    return str(exc) if isinstance(exc, Unavailable) else f"{step} failed with {raised_at(exc)}; please report it"
