"""Runs single checks of the doctor on facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.examine import CHECKS

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts

_BY_ID: Final = {check.id: check for check in CHECKS}


def judged(facts: Facts, name: str) -> dict[str, Outcome]:
    """Subject → outcome of the check *name*."""
    return {outcome.subject: outcome for outcome in _BY_ID[name].outcomes(facts)}


def verdicts(facts: Facts, name: str) -> dict[str, str]:
    """Subject → verdict of the check *name*."""
    return {subject: outcome.verdict for subject, outcome in judged(facts, name).items()}
