"""What Celery keeps in a Redis: waiting messages, messages that workers hold, results. Looked at, not judged.

Every look reads a bounded number of keys, and never the content of a message or a result.
"""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from redis import exceptions

from celery_argsize.doctor.checks import NotKnown
from celery_argsize.doctor.queue_facts import known_queues

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Contents", "Results", "Unacked", "Waiting", "results_in", "unacked_in", "waiting_in"]

#: How kombu's Redis transport names things; each can be changed in ``broker_transport_options``.
SEPARATOR: Final = "\x06\x16"
STEPS: Final = (0, 3, 6, 9)
BINDINGS: Final = "_kombu.binding."
VISIBILITY: Final = 3600

#: Celery's prefix of a result's key; ``global_keyprefix`` may stand before it.
RESULTS: Final = "celery-task-meta-"

#: A SCAN looks at this many keys, and there are this many of them.
SCANNED: Final = 1000
SCANS: Final = 20
#: Seconds that they may take, where Redis is far away: other looks come after them.
SCANNING: Final = 2.0

#: Commands that are sent at once.
TOGETHER: Final = 1000

#: Results whose expiry is asked for.
SAMPLE: Final = 2000

#: The queues whose memory is asked for: those with the most messages.
WEIGHED: Final = 5

#: Of those that are not lists: remote control and events go by pub/sub.
_NO_QUEUES: Final = ("celeryev", "pidbox")


class Waiting(NamedTuple):
    """Messages that nobody took yet."""

    queues: Mapping[str, int] = {}
    """Queue → messages waiting, those of all priorities."""
    weights: Mapping[str, int] = {}
    """Queue → bytes of memory, an estimate; of the longest ones."""
    complete: bool = True
    """Whether these are all queues that anyone declared there; those that the app names are always among them."""


class Unacked(NamedTuple):
    """Messages that workers hold, and have not acknowledged."""

    held: int
    oldest: float
    """Seconds since the one that is held longest was taken."""
    overdue: int
    """Those held for longer than the visibility timeout."""
    visibility: float
    """That timeout, in seconds."""


class Results(NamedTuple):
    """A sample of the results' keys."""

    sampled: int
    lasting: int
    """Of these, those that never expire."""
    complete: bool
    """Whether the sample is all there are."""


class Contents(NamedTuple):
    """What Celery keeps there."""

    waiting: Waiting = Waiting()
    unacked: Unacked | None = None
    results: Results | None = None


def _options(app: Any) -> dict[str, Any]:
    """The options of the app's broker."""
    try:
        return dict(app.conf.broker_transport_options or {})
    except (TypeError, ValueError):
        message = "broker_transport_options is no dict"
        raise NotKnown(message) from None


def _text_option(options: Mapping[str, Any], name: str, default: str) -> str:
    value = options.get(name, default)
    if not isinstance(value, str):
        _refuse(name, "a text is needed")
    return value


def _refuse(name: str, needed: str) -> NoReturn:
    message = f"broker_transport_options[{name!r}] cannot work: {needed}"
    raise NotKnown(message) from None


def _prefix(options: Mapping[str, Any]) -> str:
    return _text_option(options, "global_keyprefix", "") if options.get("global_keyprefix") else ""


def _steps(options: Mapping[str, Any]) -> tuple[int, ...]:
    steps = options.get("priority_steps") or STEPS
    if not isinstance(steps, (list, tuple, range)) or not all(isinstance(step, int) for step in steps):
        _refuse("priority_steps", "a list of whole numbers is needed")
    return (*steps,)


def waiting_in(client: Any, database: int | None, app: Any, until: float) -> Waiting:
    """The queues of *app*, and others that are bound in Redis.

    Raises:
        NotKnown: an option of the broker cannot work; the text names it.
    """
    options = _options(app)
    prefix, separator, steps = _prefix(options), _text_option(options, "sep", SEPARATOR), _steps(options)
    if not separator:
        _refuse("sep", "it must not be empty")
    _use(client, database)
    keys: dict[str, list[str]] = {}
    queues: dict[str, int] = {}

    def ask(names: Iterable[str]) -> None:
        asked = {
            name: [f"{prefix}{name}{separator}{step}" if step else f"{prefix}{name}" for step in steps]
            for name in sorted(names)
            if not any(word in name for word in _NO_QUEUES)
        }
        sizes = iter(_each(client, "llen", [*chain.from_iterable(asked.values())]))
        queues.update({name: sum(map(_number, islice(sizes, len(of)))) for name, of in asked.items()})
        keys.update(asked)

    ask(known_queues(app))
    found, complete = _bound_queues(client, prefix, separator, until)
    others = sorted(found - {*queues})
    for start in range(0, len(others), TOGETHER):
        if time.monotonic() > until:
            complete = False
            break
        ask(others[start : start + TOGETHER])
    return Waiting(queues, _weights(client, queues, keys), complete)


def _weights(client: Any, queues: Mapping[str, int], keys: Mapping[str, list[str]]) -> dict[str, int]:
    """The memory of the longest of *queues*, where the server tells."""
    longest = sorted(filter(queues.get, queues), key=lambda name: -queues[name])[:WEIGHED]
    with suppress(exceptions.ResponseError):
        sizes = iter(_each(client, "memory_usage", [*chain.from_iterable(keys[name] for name in longest)]))
        weights = {name: sum(map(_number, islice(sizes, len(keys[name])))) for name in longest}
        return {name: weight for name, weight in weights.items() if weight}
    return {}


def _number(answer: Any) -> int:
    """That of a list; what is none is an error here, and no queue."""
    return answer if isinstance(answer, int) else 0


def _use(client: Any, database: int | None) -> None:
    """Go on in *database*, if that may be another than the one before."""
    if database is not None:
        client.select(database)


def _each(client: Any, command: str, keys: list[Any]) -> list[Any]:
    """The answers of *command* to each of *keys*, an error among them as it is."""
    if not keys:
        return []
    pipe = client.pipeline(transaction=False)
    for key in keys:
        getattr(pipe, command)(key)
    answers: list[Any] = pipe.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, exceptions.NoPermissionError):
            raise answer
    return answers


def _bound_queues(client: Any, prefix: str, separator: str, until: float) -> tuple[set[str], bool]:
    """The queues that anyone declared in this Redis, as far as a bounded SCAN finds them; and whether it did all."""
    found: set[str] = set()
    bindings, complete = _scan(client, f"{prefix}{BINDINGS}*", until)
    for start in range(0, len(bindings), TOGETHER):
        if time.monotonic() > until:
            return found - {""}, False
        for members in _each(client, "smembers", bindings[start : start + TOGETHER]):
            if not isinstance(members, Exception):  # such as that of one that is no set
                found |= {_text(member).split(separator)[-1] for member in members}
    return found - {""}, complete


def _scan(client: Any, match: str, until: float, most: int = 10**9) -> tuple[list[Any], bool]:
    """Keys that *match*, and whether that is all of them."""
    until = min(until, time.monotonic() + SCANNING)
    cursor, keys = 0, []
    for _ in range(SCANS):
        cursor, found = client.scan(cursor, match=match, count=SCANNED)
        keys += found
        if not cursor:
            return keys, True
        if len(keys) >= most or time.monotonic() > until:
            break
    return keys, False


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def unacked_in(client: Any, database: int | None, app: Any) -> Unacked:
    """What workers hold.

    Raises:
        NotKnown: an option of the broker cannot work; the text names it.
    """
    options = _options(app)
    index = _prefix(options) + _text_option(options, "unacked_index_key", "unacked_index")
    held = _prefix(options) + _text_option(options, "unacked_key", "unacked")
    try:
        visibility = float(options.get("visibility_timeout", VISIBILITY))
    except (TypeError, ValueError):
        _refuse("visibility_timeout", "a number of seconds is needed")
    _use(client, database)
    now = time.time()
    pipe = client.pipeline(transaction=False)
    pipe.zrange(index, 0, 0, withscores=True)
    pipe.hlen(held)
    pipe.zcount(index, "-inf", now - visibility)
    oldest, count, overdue = pipe.execute()
    return Unacked(int(count), max(0.0, now - oldest[0][1]) if oldest else 0.0, int(overdue), visibility)


def results_in(client: Any, database: int | None, until: float) -> Results:
    """How many results never expire, in a sample of them."""
    _use(client, database)
    keys, complete = _scan(client, f"*{RESULTS}*", until, SAMPLE)
    sample = keys[:SAMPLE]
    left = _each(client, "pttl", sample)
    # -2: it is gone since
    return Results(sum(one != -2 for one in left), left.count(-1), complete and len(sample) == len(keys))  # noqa: PLR2004
