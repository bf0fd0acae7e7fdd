"""Looks, all at once and within a time, and has every check judge what was found.

A look that fails or takes too long makes unknown what rests on it; a judge that fails, only itself.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.doctor.checks import CheckResult, Diagnosis, Outcome, unknown
from celery_argsize.doctor.facts import Facts, LookResult, Scope, Unavailable, raised_at
from celery_argsize.doctor.judge import (
    beat as beat_checks,
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
    *worker_checks.CHECKS,
    *beat_checks.CHECKS,
    *monitor_checks.CHECKS,
    *host_checks.CHECKS,
)

#: Seconds that all looking may take.
SECONDS: Final = 10.0

#: Where it looks: the names of the fields of ``Facts``.
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
    progress: Callable[[int, int], None] | None = None,
    **given: str | None,
) -> Diagnosis:
    """Look at the Redis, the settings, the live workers, the monitor and this machine, and say what is wrong.

    It changes nothing and starts nothing. *seconds*: how long that may take in all; what has not answered by then is
    unknown, with the reason. *max_clients*: how many the Redis takes, where it does not tell (hosted ones). *given*:
    ``redis_url``, ``key_prefix`` and ``app_name``, as for ``get_size_summary``. *progress* is called with how many
    looks of all are done. Trouble is in what this returns.
    """
    broken = load(app) if app is not None else ""
    usable = app if not broken or _has_conf(app) else None
    where = Scope(usable, given, seconds, max_clients, broken)
    facts = look_around(where, progress=progress or (lambda *_: None))
    return Diagnosis(str(getattr(app, "main", None) or ""), time.time(), judge(facts))


def load(app: Celery) -> str:
    """Load what a worker would, here and not in several threads at once; what kept it from being loaded."""
    try:
        app.conf.get("broker_url")  # reads the configuration
        app.finalize()
        app.loader.import_default_modules()
    except ModuleNotFoundError as exc:
        return f"there is no module {exc.name}"
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - the code of others
        return raised_at(exc)
    return ""


def _has_conf(app: Any) -> bool:
    """Whether the configuration of *app* can be read at all."""
    try:
        app.conf.get("broker_url")
    except (Exception, SystemExit):  # noqa: BLE001 - as above
        return False
    return True


def look_around(
    where: Scope,
    looks: Mapping[str, Callable[[Scope], Any]] = LOOKS,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Facts:
    """All looks, at the same time, for *where.seconds* at most; what hangs is left behind."""
    found: dict[str, LookResult[Any]] = {}

    def look(name: str, into: Callable[[Scope], Any]) -> None:
        try:
            found[name] = LookResult(into(where))
        except Unavailable as exc:
            found[name] = LookResult(why_not=str(exc))
        except Exception as exc:  # noqa: BLE001 - one look that fails never hides the others
            found[name] = LookResult(why_not=f"looking failed with {raised_at(exc)}; please report it")

    # Daemons: a broker that hangs keeps nobody from going on, nor this process from ending.
    threads = [threading.Thread(target=look, args=item, daemon=True) for item in looks.items()]
    deadline = time.monotonic() + where.seconds
    for thread in threads:
        thread.start()
    while (alive := [thread for thread in threads if thread.is_alive()]) and time.monotonic() < deadline:
        progress(len(threads) - len(alive), len(threads))
        alive[0].join(0.05)
    late: LookResult[Any] = LookResult(why_not=f"no answer within {where.seconds:g} s; --timeout gives it longer")
    return Facts(where, **{name: found.get(name, late) for name in looks})


def judge(facts: Facts, checks: Iterable[Check] = CHECKS) -> tuple[CheckResult, ...]:
    """What each of *checks* says of *facts*."""
    return tuple(CheckResult(check, outcome) for check in checks for outcome in _outcomes(check, facts))


def _outcomes(check: Check, facts: Facts) -> list[Outcome]:
    try:
        return check.outcomes(facts)
    except Unavailable as exc:
        return [unknown(str(exc))]
    except Exception as exc:  # noqa: BLE001 - one check that fails never hides the others
        return [unknown(f"this check failed with {raised_at(exc)}; please report it")]
