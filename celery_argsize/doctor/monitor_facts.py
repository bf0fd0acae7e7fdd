"""What was measured, as Redis has it; what live workers say of themselves is among ``worker_facts``."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from celery_argsize.configure import advice_for, verify_limits
from celery_argsize.doctor.facts import Looked
from celery_argsize.errors import ArgsizeError
from celery_argsize.summary import summarize
from celery_argsize.target import Reader, find_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_argsize.advice import Advice
    from celery_argsize.doctor.facts import Where
    from celery_argsize.summary import Summary
    from celery_argsize.target import Target
    from celery_argsize.verify import HostCheck

__all__ = ["MonitorFacts", "look_at_monitor"]

_T = TypeVar("_T")
_F = TypeVar("_F")


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorFacts:
    """What was measured, and what follows from it."""

    summary: Looked[Summary]
    advice: Looked[Advice]
    hosts: Looked[tuple[HostCheck, ...]]
    """What the messages of each sending host show of the limits in force."""


def look_at_monitor(where: Where) -> MonitorFacts:
    """Read the figures, and what follows from them.

    Raises:
        NotKnown: the app cannot be loaded.
    """
    where.need_whole()
    summary = _looked(lambda: _summary(find_target(where.app, **where.given)))
    hosts: Looked[tuple[HostCheck, ...]] = Looked(why_not=where.why_no_app)
    return MonitorFacts(
        summary=summary,
        advice=_after(summary, lambda found: advice_for(found, where.app, None)),
        hosts=hosts if where.app is None else _after(summary, lambda _: _hosts(where)),
    )


def _summary(target: Target) -> Summary:
    with closing(Reader(target)) as reader:
        return summarize(*reader.read_each())


def _hosts(where: Where) -> tuple[HostCheck, ...]:
    if where.app is None:
        return ()
    given: dict[str, Any] = {**where.given}
    return tuple(verify_limits(where.app, **given))


def _looked(look: Callable[[], _T]) -> Looked[_T]:
    try:
        return Looked(look())
    except ArgsizeError as exc:
        return Looked(why_not=str(exc))


def _after(before: Looked[_F], look: Callable[[_F], _T]) -> Looked[_T]:
    found = before.found
    return Looked(why_not=before.why_not) if found is None else _looked(lambda: look(found))
