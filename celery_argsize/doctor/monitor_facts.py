"""What the monitor's own settings and figures say; what live workers say of theirs is among ``worker_facts``."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from celery_argsize.configure import advice_for, verify_limits
from celery_argsize.doctor.facts import NO_APP, Looked
from celery_argsize.errors import ArgsizeError
from celery_argsize.monitor import installed
from celery_argsize.summary import summarize
from celery_argsize.target import Reader, find_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_argsize.advice import Advice
    from celery_argsize.config import Settings
    from celery_argsize.doctor.facts import Where
    from celery_argsize.summary import Summary
    from celery_argsize.target import Target
    from celery_argsize.verify import HostCheck

__all__ = ["MonitorFacts", "look_at_monitor"]

_T = TypeVar("_T")
_F = TypeVar("_F")


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorFacts:
    """The monitor, as the app at hand has it, and what was measured."""

    installed: bool
    """Whether ``install`` was called for the app when it was imported; ``False`` without an app."""
    settings: Looked[Settings]
    summary: Looked[Summary]
    advice: Looked[Advice]
    hosts: Looked[tuple[HostCheck, ...]]
    """What the messages of each sending host show of the limits in force."""


def look_at_monitor(where: Where) -> MonitorFacts:
    """Read the settings, the figures, and what follows from both."""
    target = _looked(lambda: find_target(where.app, **where.given))
    summary = _after(target, _summary)
    return MonitorFacts(
        installed=where.app is not None and installed(where.app) is not None,
        settings=_after(target, lambda found: found.settings),
        summary=summary,
        advice=_after(summary, lambda found: advice_for(found, where.app, None)),
        hosts=_looked(lambda: _hosts(where)) if where.app is not None else Looked(why_not=NO_APP),
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
