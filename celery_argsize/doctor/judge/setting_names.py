"""Which names among an app's settings mean nothing to Celery, and which one was meant. Pure.

An app's settings hold people's own as well, and those of extensions: a name is only suspicious if it is almost that of
a real one, or begins as only Celery's do.
"""

from __future__ import annotations

import re
from datetime import timedelta
from difflib import get_close_matches
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery.app.defaults import NAMESPACES, SETTING_KEYS, flatten
from kombu.transport.redis import SentinelChannel

from celery_argsize.doctor.app import (
    broker_kind,
    number,
    own_tasks,
    setting,
    spelled,
    transport_option,
    transport_options,
)
from celery_argsize.doctor.checks import fail, ok, warn
from celery_argsize.settings import CONF_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts


class Misnomer(NamedTuple):
    """A name that does nothing."""

    written: str
    """As the user wrote it."""
    meant: str
    """The setting that was probably meant, in lower case; empty if there is none like it."""
    why: str = ""
    """More to say, where more is known."""
    fix: str = ""
    """What to do, if that is not to rename it."""


_NO_HEARTBEAT: Final = (
    "broker_heartbeat is about the connection to RabbitMQ, and Redis ignores it; how often a worker says that it lives "
    "is an option of its command, --heartbeat-interval."
)
_NAMESPACE: Final = 'app.config_from_object(..., namespace="CELERY")'
_NO_NAMESPACE: Final = "Celery reads such names only in a namespace."

#: Names that people take for settings. The first two are from a field report on missed heartbeats.
_TAKEN_FOR: Final[dict[str, tuple[str, ...]]] = {
    "worker_heartbeat": ("broker_heartbeat", _NO_HEARTBEAT, "remove it"),
    "worker_clock_sync_interval": ("", "Workers keep their clocks in step without a setting."),
    "worker_heartbeat_interval": ("", "It is an option of the worker's command: --heartbeat-interval."),
    "worker_max_memory": ("worker_max_memory_per_child", ""),
    "worker_time_limit": ("task_time_limit", ""),
    "worker_soft_time_limit": ("task_soft_time_limit", ""),
    "worker_pool_limit": ("broker_pool_limit", ""),
    "worker_queues": ("task_queues", ""),
    "task_timeout": ("task_time_limit", ""),
    "task_result_expires": ("result_expires", ""),
    "broker_max_connections": ("broker_pool_limit", ""),
    "broker_visibility_timeout": (
        "",
        'It is an option of the transport: broker_transport_options["visibility_timeout"].',
    ),
    "visibility_timeout": ("", 'It is an option of the transport: broker_transport_options["visibility_timeout"].'),
    "result_max_connections": ("redis_max_connections", ""),
    "max_connections": ("redis_max_connections", ""),
    "concurrency": ("worker_concurrency", ""),
    "redis_health_check_interval": ("redis_backend_health_check_interval", ""),
}
#: What a name of no setting begins with, unless it is meant for Celery: nobody's own begin so by chance.
_CELERYS: Final = ("task_", "worker_", "beat_", "event_", "control_")
#: Parts of the settings, whose names people write without the part: ``time_limit``.
_LEFT_OUT: Final = ("task_", "worker_", "broker_", "result_")
#: How old names begin: ``CELERYD_CONCURRENCY``.
_OLD: Final = ("CELERY_", "CELERYD_", "CELERYBEAT_", "BROKER_")
#: Read by Celery or kombu, though not in Celery's table.
_READ: Final = frozenset(
    {
        "deprecated_settings",
        "dynamodb_endpoint_url",
        "gcs_threadpool_maxsize",
        "override_backends",
        "redis_backend_credential_provider",
        "redis_backend_health_check_interval",
        "redis_client_name",
        "result_backend_thread_safe",
    }
)
#: What settings of extensions begin with.
_EXTENSIONS: Final = (
    CONF_PREFIX,
    "redbeat_",
    "beat_dburi",  # celery-sqlalchemy-scheduler
    "beat_schema",
    "beat_engine_options",
    "django_celery_",
    "singleton_",
    "once",
    "flower_",
    "mongodb_",
)
#: What a Redis result backend does not read in result_backend_transport_options → the setting that it reads. A field
#: report had three of them there.
RESULT_OPTIONS: Final = {
    "socket_timeout": "redis_socket_timeout",
    "socket_connect_timeout": "redis_socket_connect_timeout",
    "socket_keepalive": "redis_socket_keepalive",
    "retry_on_timeout": "redis_retry_on_timeout",
    "health_check_interval": "redis_backend_health_check_interval",
    "max_connections": "redis_max_connections",
    "socket_read_size": "",
}
#: How alike two names must be (difflib's ratio), without the part of the settings that both begin with.
_ALIKE: Final = 0.75
_VERY_ALIKE: Final = 0.9


def _old_spellings() -> dict[str, set[str]]:
    """Each setting → how it was written before Celery 4; that still works."""
    parts: Mapping[str, Any] = NAMESPACES
    old: dict[str, set[str]] = {}
    for part, options in parts.items():
        # timezone and a few others are in no part
        for key, option in options.items() if isinstance(options, dict) else [("", options)]:
            name = f"{part}_{key}".rstrip("_")
            old[name] = {form.format(key or part).upper() for form in option.old} or {name.upper()}
    return old


_SPELLED_OLD: Final = _old_spellings()
_OLD_NAMES: Final = frozenset().union(*_SPELLED_OLD.values())
_KNOWN: Final = frozenset(SETTING_KEYS) | _READ


def misnomers(app: Any) -> list[Misnomer]:
    """The names in the settings of *app* that Celery does not know, though they were meant for it."""
    conf = app.conf
    conf.get("task_time_limit")  # reads what is not read yet
    found = {}
    for written in _written(conf):
        if (misnomer := _misnomer(conf, written)) is not None:
            found[written] = misnomer
    return [found[written] for written in sorted(found)]


def is_set(conf: Any, name: str) -> bool:
    """Whether the user gave the setting *name* a value, however it is spelled."""
    return any(key in mapping for mapping in conf.maps[:-1] for key in _spellings(name, conf.prefix))


def similar_option(name: str) -> str:
    """The option of the Redis transport of which *name* is a misspelling; empty: it is one, or like none."""
    options = (*SentinelChannel.from_transport_options, "reauth_check_interval")
    return "" if name in options else _nearest(name, options, _VERY_ALIKE)


def _written(conf: Any) -> Iterator[str]:
    """Names as the user wrote them. The last of the maps are Celery's defaults."""
    for mapping in conf.maps[:-1]:
        for key in mapping:
            if isinstance(key, str) and not key.startswith("_") and not _is_code(mapping, key):
                yield key


def _is_code(mapping: Any, key: str) -> bool:
    """Whether it is an import, a function or a class in a module of settings."""
    try:
        value = mapping[key]
    except Exception:  # noqa: BLE001 - a lazy setting of someone's: none of ours
        return True
    return isinstance(value, (ModuleType, type)) or callable(value)


def _spellings(name: str, prefix: str | None) -> set[str]:
    """How a setting may be written; *prefix* is that of the namespace, ``CELERY_``."""
    full = f"{prefix or ''}{name}"
    return {name, full.upper() if prefix and prefix.isupper() else full.lower(), *_SPELLED_OLD.get(name, ())}


def _misnomer(conf: Any, written: str) -> Misnomer | None:
    name = _bare(written, conf.prefix)
    if name is None and not conf.prefix:
        return _old_misnomer(conf, written)
    if name is None or name in _KNOWN or written in _OLD_NAMES or name.startswith(_EXTENSIONS):
        return None
    if name.startswith(_CELERYS):
        return Misnomer(written, *_TAKEN_FOR.get(name, (_meant(name),)))
    meant, *why = _TAKEN_FOR.get(name, (_meant(name),))
    if (meant and is_set(conf, meant)) or not (meant or why):
        return None  # people's own: a part of what they set, such as default_queue next to task_default_queue
    return Misnomer(written, meant, *why)


def _old_misnomer(conf: Any, written: str) -> Misnomer | None:
    """Of names in upper case, without a namespace, Celery only reads the old ones."""
    name = written.lower().removeprefix("celery_")
    if written in _OLD_NAMES or not written.startswith(_OLD):
        return None
    if name in _KNOWN:
        return None if is_set(conf, name) else Misnomer(written, name, _NO_NAMESPACE, _NAMESPACE)
    old = _nearest(written, _OLD_NAMES, _VERY_ALIKE)
    new = next((new for new, spellings in _SPELLED_OLD.items() if old in spellings), "")
    return Misnomer(written, old) if new and not is_set(conf, new) else None


def _bare(written: str, prefix: str | None) -> str | None:
    """The name without the namespace, in lower case; ``None``: not one of Celery's spellings."""
    if prefix and written.startswith(prefix.upper() if prefix.isupper() else prefix.lower()):
        return written[len(prefix) :].lower()
    if written.islower():
        return written
    return None


def _meant(name: str) -> str:
    """The setting that was probably meant; empty: none that is like it."""
    part, _, short = name.partition("_")
    if "_" in name and (left_out := [one + name for one in _LEFT_OUT if one + name in _KNOWN]):
        return left_out[0]
    same = {known.partition("_")[2]: known for known in sorted(_KNOWN) if known.startswith(f"{part}_")}
    if same:
        alike = _ALIKE if f"{part}_" in (*_CELERYS, *_LEFT_OUT) else _VERY_ALIKE
        other = [one + short for one in _LEFT_OUT if f"{part}_" in _LEFT_OUT and one + short in _KNOWN]
        return same.get(_nearest(short, same, alike), "") or next(iter(other), "")
    # what only a certain result backend reads is too near to people's own names: database_urls
    return _nearest(
        name, [one for one in _KNOWN if one.startswith((*_CELERYS, *_LEFT_OUT)) or one in NAMESPACES], _VERY_ALIKE
    )


def _nearest(name: str, known: Iterable[str], alike: float) -> str:
    return next(iter(get_close_matches(name, sorted(known), 1, alike)), "")


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
