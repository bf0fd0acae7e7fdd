"""The checks settings.names and settings.values: an app's settings against Celery's table.

Apps and extensions keep their own settings in ``app.conf`` too. So a name is
reported only if it is close to one of Celery's, or begins like one.
"""

from __future__ import annotations

import re
from datetime import timedelta
from difflib import get_close_matches
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from celery.app import defaults

from celery_argsize.doctor import app as apps
from celery_argsize.doctor.checks import fail, ok, warn
from celery_argsize.settings import CONF_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from celery import Celery

    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts

#: Celery's table: each setting with its kind and its default.
_TABLE: Final[dict[str, Any]] = dict(defaults.flatten(defaults.NAMESPACES))
#: Each name from before Celery 4, such as ``CELERYD_CONCURRENCY``, and its name now.
_OLD_NAMES: Final[dict[str, str]] = vars(defaults)["_TO_NEW_KEY"]
#: Only Celery's settings begin so.
_CELERYS: Final = ("task_", "worker_", "beat_", "event_", "control_")
#: Parts that people leave out (``time_limit``) or take for each other
#: (``worker_acks_late``).
_CONFUSED: Final = ("task", "worker", "broker", "result")
#: Settings of extensions.
_EXTENSIONS: Final = (CONF_PREFIX, "beat_dburi", "beat_schema", "beat_engine_options")
#: How alike names must be (difflib's ratio), and where
#: people's own begin like Celery's.
_ALIKE: Final = 0.75
_VERY_ALIKE: Final = 0.9
#: Names that people take for settings (two from a field report), and what to use.
_REMARKS: Final = {
    "worker_heartbeat": "broker_heartbeat: Redis ignores it. Workers take --heartbeat-interval.",
    "worker_clock_sync_interval": "Workers keep their clocks in step without it.",
    "visibility_timeout": 'It is broker_transport_options["visibility_timeout"].',
}


def names(facts: Facts) -> list[Outcome] | Outcome:
    """Judge the names of settings."""
    conf = facts.conf.finalize()
    # the last of the maps has Celery's defaults
    names = {name for mapping in conf.maps[:-1] for name in mapping}
    # a module of settings has imports and functions as well
    names = {name for name in names if not (isinstance(conf[name], ModuleType) or callable(conf[name]))}
    given = {_canonical(name, conf.prefix) for name in names} - {""}
    outcomes = [outcome for name in sorted(names) for outcome in _name(facts.app, name, given)]
    return outcomes or ok("Celery knows every setting that is meant for it")


def _canonical(written: str, prefix: str | None) -> str:
    """The name in Celery's table; empty: Celery does not read it. *prefix*: ``CELERY_``."""
    if written in _OLD_NAMES:
        return _OLD_NAMES[written]
    if prefix and written.startswith(prefix.upper() if prefix.isupper() else prefix.lower()):
        return written[len(prefix) :].lower()
    return written if written.islower() and not written.startswith("_") else ""


def _name(app: Celery, written: str, given: set[str]) -> Iterator[Outcome]:
    """Judge one name. *given*: every setting that has a value."""
    prefix = vars(app.conf)["prefix"]
    name = _canonical(written, prefix)
    if not name:
        meant = written.lower().removeprefix("celery_")
        if not prefix and written.startswith("CELERY_") and meant in _TABLE.keys() - given:
            fix = 'app.config_from_object(..., namespace="CELERY")'
            reason = "Celery reads such names only in a namespace."
            yield warn(reason, f"{written}; it is {meant}", fix=fix)
        return
    meant, remark = _meant(name), _REMARKS.get(name.removeprefix("broker_"), "")
    # people's own: default_queue, from which task_default_queue is made
    own = not name.startswith(_CELERYS) and (meant in given or not (meant or remark))
    if own or name in _TABLE or name.startswith(_EXTENSIONS):
        return
    figure, fix = written, f"remove {written}"
    if meant:
        meant = apps.spelled(app, meant)
        figure += f"; the nearest that it knows is {meant}"
        fix = fix if remark else f"rename {written} to {meant}"
    yield warn(f"Celery does not know it. {remark}".rstrip(), figure, fix=fix)


def _meant(name: str) -> str:
    """The setting that was probably meant by *name*, if any."""
    part, _, short = name.partition("_")
    same_part = [key.removeprefix(f"{part}_") for key in _TABLE if key.startswith(f"{part}_")]
    alike = _ALIKE if part in _CONFUSED or name.startswith(_CELERYS) else _VERY_ALIKE
    if near := _nearest(short, same_part, alike):
        return f"{part}_{near}"
    rest = short if part in _CONFUSED else name if "_" in name else ""
    moved = (rest, *(f"{other}_{rest}" for other in _CONFUSED))
    other = "" if same_part else _nearest(name, _TABLE, _VERY_ALIKE)
    return next((key for key in moved if key in _TABLE), other)


def _nearest(name: str, candidates: Iterable[str], alike: float) -> str:
    return next(iter(get_close_matches(name, candidates, 1, alike)), "")


#: Settings that are numbers, or not set.
_NUMBERS: Final = [name for name in _TABLE if _TABLE[name].type in {"int", "float"}]
#: Celery takes a text for those with these ends, and a timedelta for the first.
_CONVERTED: Final = ("_expires", "redis_db", "redis_port", "broker_port")


def values(facts: Facts) -> list[Outcome] | Outcome:
    """Judge the kinds of values."""
    return [*_settings(facts.app), *_visibility_timeout(facts.app)] or ok("numbers are numbers")


def _settings(app: Celery) -> Iterator[Outcome]:
    for name in [*_NUMBERS, "worker_concurrency"]:
        value, default = app.conf.get(name), _TABLE[name].default
        span = name.endswith("_expires") and isinstance(value, timedelta)
        if not value or span or isinstance(value, (int, float)):
            continue
        figure, amount = f"{apps.spelled(app, name)} is {_shown(value)}", apps.number(value)
        if amount is None:
            if isinstance(default, timedelta):
                default = default.total_seconds()
            fix = apps.setting(app, name, default)
            yield fail("It must be a number: Celery fails with it.", figure, fix=fix)
        elif isinstance(value, str) and not name.endswith(_CONVERTED):
            fix = apps.setting(app, name, int(amount) if amount.is_integer() else amount)
            yield warn("It is text: Celery may fail with it.", figure, fix=fix)


def _visibility_timeout(app: Celery) -> Iterator[Outcome]:
    name, default = "visibility_timeout", 3600
    value = apps.transport_options(app).get(name, default)
    if not isinstance(value, (int, float)) and apps.broker_kind(app) in {"redis", "sqs"}:
        figure, fix = f"{name} is {_shown(value)}", apps.transport_option(app, name, default)
        yield fail("It must be a number: kombu fails with it.", figure, fix=fix)


def _shown(value: object) -> str:
    """*value* as in Python; only its type where it may have a password."""
    shown = repr(value)
    plain = re.fullmatch(r"[\w .,+\-'\"()\[\]]{,40}", shown)
    return shown if plain else f"a {type(value).__name__}"
