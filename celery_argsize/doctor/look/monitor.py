"""Looks at what celery_argsize measured, and at the advice made of it."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from celery_argsize.api.advice import advice_for, verify_limits
from celery_argsize.api.location import Reader, locate
from celery_argsize.doctor.facts import MonitorFacts, Scope, Unavailable
from celery_argsize.errors import ArgsizeError
from celery_argsize.figures.summary import summarize


def look_at_monitor(where: Scope) -> MonitorFacts:
    """Read the figures and make advice; raises ``Unavailable`` if they cannot be read."""
    given: dict[str, Any] = {**where.given}
    try:
        with closing(Reader(locate(where.app, **given))) as reader:
            summary = summarize(*reader.read_each())
        hosts = verify_limits(where.app, **given) if where.app is not None else []
        advice = advice_for(summary, where.app, None)
    except ArgsizeError as exc:
        raise Unavailable(str(exc)) from None
    return MonitorFacts(summary=summary, advice=advice, hosts=tuple(hosts))
