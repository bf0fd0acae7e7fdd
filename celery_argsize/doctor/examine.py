"""``diagnose``: takes all looks at once, within a time, and gives what they saw to every check.

A look that fails or takes too long leaves unknown what needs it. A check that fails leaves only itself unknown.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.doctor.checks import CheckResult, Diagnosis, Outcome, unknown
from celery_argsize.doctor.facts import Facts, LookResult, Scope, Unavailable, raised_at
from celery_argsize.doctor.judge import (
    beat as beat_checks,
    broker as broker_checks,
    host as host_checks,
    monitor as monitor_checks,
    redis as redis_checks,
    settings as settings_checks,
    workers as worker_checks,
)
from celery_argsize.doctor.look.host import look_at_host
from celery_argsize.doctor.look.monitor import look_at_monitor
from celery_argsize.doctor.look.redis import look_at_redis
from celery_argsize.doctor.look.workers import look_at_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from celery import Celery

    from celery_argsize.doctor.checks import Check

#: Every check, in the order in which they are shown.
CHECKS: Final = (
    *redis_checks.CHECKS,
    *settings_checks.CHECKS,
    *broker_checks.CHECKS,
    *worker_checks.CHECKS,
    *beat_checks.CHECKS,
    *monitor_checks.CHECKS,
    *host_checks.CHECKS,
)

#: Seconds that looking may take in all, unless said otherwise.
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
    """Say what is wrong with the Redis, the settings, the live workers, the monitor and this machine.

    It changes nothing and starts nothing, and raises no error for what it finds.

    Args:
        app: without one, only the Redis, the figures and this machine are looked at.
        seconds: how long looking may take. What has not answered by then is unknown.
        max_clients: how many clients the Redis takes; hosted ones do not always tell.
        given: ``redis_url``, ``key_prefix`` and ``app_name``, as for ``get_size_summary``.
    """
    broken = load(app) if app is not None else ""
    usable = None if broken and _conf_error(app) else app
    where = Scope(usable, given, seconds, max_clients, broken)
    facts = look_around(where)
    return Diagnosis(str(getattr(app, "main", None) or ""), time.time(), judge(facts))


def load(app: Celery) -> str:
    """Load the app and its tasks as a worker does; why that failed, or an empty string.

    The looks run in threads of their own, and must not all load it.
    """
    return _conf_error(app) or _error(app.finalize) or _error(app.loader.import_default_modules)


def _conf_error(app: Any) -> str:
    """Why the configuration cannot be read; empty if it can."""
    return _error(lambda: app.conf.get("broker_url"))


def _error(step: Callable[[], Any]) -> str:
    """Why *step* failed; empty if it did not."""
    try:
        step()
    except ModuleNotFoundError as exc:
        return f"there is no module {exc.name}"
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - the app's own code may raise anything
        return raised_at(exc)
    return ""


def look_around(where: Scope, looks: Mapping[str, Callable[[Scope], Any]] = LOOKS) -> Facts:
    """Take all *looks* at once. One that has not ended after *where.seconds* is left behind."""
    results: dict[str, LookResult[Any]] = {}

    def take(name: str, look: Callable[[Scope], Any]) -> None:
        try:
            results[name] = LookResult(look(where))
        except Exception as exc:  # noqa: BLE001 - one look that fails must not hide the others
            results[name] = LookResult(why_not=_why(exc, "looking"))

    # daemon threads: one that hangs does not keep the process from ending
    threads = [threading.Thread(target=take, args=item, daemon=True) for item in looks.items()]
    deadline = time.monotonic() + where.seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late: LookResult[Any] = LookResult(why_not=f"no answer within {where.seconds:g} s; --timeout gives it longer")
    return Facts(where, **{name: results.get(name, late) for name in looks})


def judge(facts: Facts, checks: Iterable[Check] = CHECKS) -> tuple[CheckResult, ...]:
    """What each of *checks* says of *facts*."""
    return tuple(CheckResult(check, outcome) for check in checks for outcome in _outcomes(check, facts))


def _outcomes(check: Check, facts: Facts) -> list[Outcome]:
    try:
        return check.outcomes(facts)
    except Exception as exc:  # noqa: BLE001 - one check that fails must not hide the others
        return [unknown(_why(exc, "this check"))]


def _why(exc: Exception, step: str) -> str:
    """Why there is no answer."""
    return str(exc) if isinstance(exc, Unavailable) else f"{step} failed with {raised_at(exc)}; please report it"
