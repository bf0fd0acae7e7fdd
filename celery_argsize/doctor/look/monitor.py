"""What was measured, as Redis has it; what live workers say of themselves is among ``worker_facts``."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

from celery_argsize.api.advice import advice_for, verify_limits
from celery_argsize.api.location import Reader, locate
from celery_argsize.doctor.facts import LookResult, MonitorFacts
from celery_argsize.errors import ArgsizeError
from celery_argsize.figures.summary import summarize

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_argsize.advice.in_force import HostCheck
    from celery_argsize.api.location import Location
    from celery_argsize.doctor.facts import Scope
    from celery_argsize.figures.summary import Summary

_T = TypeVar("_T")
_F = TypeVar("_F")


def look_at_monitor(where: Scope) -> MonitorFacts:
    """Read the figures, and what follows from them.

    Raises:
        Unavailable: the app cannot be loaded.
    """
    where.need_whole()
    summary = _looked(lambda: _summary(locate(where.app, **where.given)))
    hosts: LookResult[tuple[HostCheck, ...]] = LookResult(why_not=where.why_no_app)
    return MonitorFacts(
        summary=summary,
        advice=_after(summary, lambda found: advice_for(found, where.app, None)),
        hosts=hosts if where.app is None else _after(summary, lambda _: _hosts(where)),
    )


def _summary(location: Location) -> Summary:
    with closing(Reader(location)) as reader:
        return summarize(*reader.read_each())


def _hosts(where: Scope) -> tuple[HostCheck, ...]:
    if where.app is None:
        return ()
    given: dict[str, Any] = {**where.given}
    return tuple(verify_limits(where.app, **given))


def _looked(look: Callable[[], _T]) -> LookResult[_T]:
    try:
        return LookResult(look())
    except ArgsizeError as exc:
        return LookResult(why_not=str(exc))


def _after(before: LookResult[_F], look: Callable[[_F], _T]) -> LookResult[_T]:
    found = before.found
    return LookResult(why_not=before.why_not) if found is None else _looked(lambda: look(found))
