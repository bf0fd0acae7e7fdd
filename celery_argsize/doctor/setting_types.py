"""Whether values of settings are of the kind that Celery and kombu take: numbers, options of the transport. Pure.

Celery itself converts few of them, and fails where they are used: in a worker, or with the first message.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from celery.app.defaults import NAMESPACES, flatten

from celery_argsize.doctor.checks import fail, ok, warn
from celery_argsize.doctor.setting_values import broker_kind, number, own_tasks, transport_option, transport_options
from celery_argsize.doctor.spelling import setting, spelled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts

__all__ = ["values"]

_DEFAULTS: Final[Mapping[str, Any]] = dict(flatten(NAMESPACES))
#: Settings that are numbers, or not set.
_NUMBERS: Final = frozenset(
    {name for name, option in _DEFAULTS.items() if option.type in {"int", "float"}} | {"worker_concurrency"}
)
#: Of those, what may be a timedelta, and what Celery makes a number of.
_SPANS: Final = frozenset({"result_expires", "result_failure_expires", "result_chord_expires"})
_CONVERTED: Final = _SPANS | {"redis_db", "redis_port", "broker_port"}
#: Options of kombu's Redis transport that are numbers, with a value that works; only the first two may not be None.
_OPTIONS: Final = {
    "visibility_timeout": 3600,
    "unacked_restore_interval": 10,
    "unacked_restore_limit": 1000,
    "socket_timeout": 30,
    "socket_connect_timeout": 20,
    "health_check_interval": 25,
    "max_connections": 10,
}
_NEVER_NONE: Final = ("visibility_timeout", "unacked_restore_interval")
_NO_NUMBER: Final = "It must be a number. Celery fails with this, at the latest when a worker or a task needs it."
_TEXT: Final = "It is text, where a number belongs. Celery converts only few settings: others fail when they are used."


def values(facts: Facts) -> list[Outcome] | Outcome:
    """Settings, options of the transport and limits of tasks whose value is of the wrong kind."""
    found = [*_settings(facts), *_options(facts), *_limits(facts)]
    return found or ok("numbers are numbers")


def _settings(facts: Facts) -> list[Outcome]:
    found = []
    for name in sorted(_NUMBERS):
        value = facts.conf.get(name)
        if not value or isinstance(value, (int, float)) or (name in _SPANS and isinstance(value, timedelta)):
            continue
        default = _DEFAULTS[name].default
        told = default.total_seconds() if isinstance(default, timedelta) else default
        figure = f"{spelled(facts.app, name)} is {_shown(value)}"
        if number(value) is None:
            found.append(fail(_NO_NUMBER, figure, fix=f"{setting(facts.app, name, told)}  # Celery's own"))
        elif isinstance(value, str) and name not in _CONVERTED:
            found.append(warn(_TEXT, figure, fix=setting(facts.app, name, _plain(value))))
    return found


def _shown(value: object) -> str:
    """*value*, unless it may be something else that ended up there, such as a URL with a password."""
    shown = repr(value)
    return shown if re.fullmatch(r"[\w .,+\-'\"()\[\]\\]{,40}", shown) else f"a {type(value).__name__}"


def _plain(value: str) -> float:
    return float(value) if "." in value or "e" in value.lower() else int(value)


def _limits(facts: Facts) -> list[Outcome]:
    """Time limits of single tasks."""
    return [
        fail(_NO_NUMBER, f"{option} is {_shown(value)}", fix=f"{option}=300 for this task, in seconds", subject=name)
        for name, task, _ in own_tasks(facts)
        for option in ("time_limit", "soft_time_limit")
        if (value := getattr(task, option)) is not None and number(value) is None
        if value != facts.conf.get(f"task_{option}")  # that is told once
    ]


def _options(facts: Facts) -> list[Outcome]:
    """broker_transport_options, of a Redis."""
    given, name = facts.conf.broker_transport_options, "broker_transport_options"
    options = transport_options(facts)
    if given and not options:
        return [fail("It must be a mapping of options.", type(given).__name__, fix=setting(facts.app, name, {}))]
    return [
        fail(f"{why} kombu fails with this.", f"{name}: {option} is {shown}", fix=fix)
        for option, why, shown, fix in _odd_options(facts, options)
    ]


def _odd_options(facts: Facts, options: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Option, what it must be, what it is, and a line that mends it."""
    kind = broker_kind(facts)
    if kind not in {"redis", "sqs"}:
        return []
    odd = []
    for name, good in _OPTIONS.items() if kind == "redis" else [("visibility_timeout", 1800)]:
        value = options.get(name, good)
        if (value is None and name in _NEVER_NONE) or not isinstance(value, (int, float, type(None))):
            odd.append((name, "It must be a number.", _shown(value), transport_option(facts, name, good)))
    if kind == "sqs":
        return odd
    for name, text in (("sep", "\x06\x16"), ("global_keyprefix", "")):
        value = options.get(name, text)
        if not isinstance(value, str) or (name == "sep" and not value):
            why = "It must be text, and not be empty." if name == "sep" else "It must be text."
            odd.append((name, why, _shown(value), transport_option(facts, name, text)))
    steps = options.get("priority_steps", [0])
    if not isinstance(steps, (list, tuple)) or not steps or not all(isinstance(step, int) for step in steps):
        why = "It must be a list of numbers, the first step being 0."
        odd.append(("priority_steps", why, _shown(steps), transport_option(facts, "priority_steps", [0, 3, 6, 9])))
    return odd
