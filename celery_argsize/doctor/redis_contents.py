"""What Celery keeps in a Redis: waiting messages, messages that workers hold, results. Looked at, not judged.

Every look reads a bounded number of keys, and never the content of a message or a result.
"""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis import exceptions

from celery_argsize.doctor.queue_facts import known_queues

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Contents", "Results", "Unacked", "results_in", "unacked_in", "waiting_in"]

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

#: Results whose expiry is asked for.
SAMPLE: Final = 2000

#: The queues whose memory is asked for: those with the most messages.
WEIGHED: Final = 5

#: Of those that are not lists: remote control and events go by pub/sub.
_NO_QUEUES: Final = ("celeryev", "pidbox")


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

    queues: Mapping[str, int] = {}
    """Queue → messages waiting, those of all priorities."""
    weights: Mapping[str, int] = {}
    """Queue → bytes of memory, an estimate; of the longest ones."""
    unacked: Unacked | None = None
    results: Results | None = None


def waiting_in(client: Any, database: int | None, app: Any, until: float) -> tuple[dict[str, int], dict[str, int]]:
    """Queue → messages, and queue → bytes for the longest ones: those of *app*, and others bound in Redis."""
    options = app.conf.broker_transport_options or {}
    prefix, separator = options.get("global_keyprefix", ""), options.get("sep", SEPARATOR)
    steps = options.get("priority_steps") or STEPS
    _use(client, database)
    names = {*known_queues(app), *_bound_queues(client, prefix, separator, until)}
    keys = {
        name: [f"{prefix}{name}{separator}{step}" if step else f"{prefix}{name}" for step in steps]
        for name in sorted(names)
        if not any(word in name for word in _NO_QUEUES)
    }
    sizes = iter(_each(client, "llen", [*chain.from_iterable(keys.values())]))
    queues = {name: sum(map(_length, islice(sizes, len(of)))) for name, of in keys.items()}
    longest = sorted(filter(queues.get, queues), key=lambda name: -queues[name])[:WEIGHED]
    weights: dict[str, int] = {}
    with suppress(exceptions.ResponseError):
        for name in longest:
            weights[name] = sum(client.memory_usage(key, samples=5) or 0 for key in keys[name])
    return queues, weights


def _length(answer: Any) -> int:
    """That of a list; what is none is an error here, and no queue."""
    return answer if isinstance(answer, int) else 0


def _use(client: Any, database: int | None) -> None:
    """Go on in *database*, if that may be another than the one before."""
    if database is not None:
        client.select(database)


def _each(client: Any, command: str, keys: list[str]) -> list[Any]:
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


def _bound_queues(client: Any, prefix: str, separator: str, until: float) -> set[str]:
    """The queues that anyone declared in this Redis, as far as a bounded SCAN finds them."""
    found: set[str] = set()
    for key in _scan(client, f"{prefix}{BINDINGS}*", until)[0]:
        with suppress(exceptions.ResponseError):  # such as one that is no set
            found |= {_text(member).split(separator)[-1] for member in client.smembers(key)}
    return found - {""}


def _scan(client: Any, match: str, until: float, most: int = 10**9) -> tuple[list[Any], bool]:
    """Keys that *match*, and whether that is all of them."""
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
    """What workers hold."""
    options = app.conf.broker_transport_options or {}
    prefix = options.get("global_keyprefix", "")
    index = prefix + options.get("unacked_index_key", "unacked_index")
    visibility = float(options.get("visibility_timeout", VISIBILITY))
    _use(client, database)
    now = time.time()
    oldest = client.zrange(index, 0, 0, withscores=True)
    return Unacked(
        int(client.hlen(prefix + options.get("unacked_key", "unacked"))),
        max(0.0, now - oldest[0][1]) if oldest else 0.0,
        int(client.zcount(index, "-inf", now - visibility)),
        visibility,
    )


def results_in(client: Any, database: int | None, until: float) -> Results:
    """How many results never expire, in a sample of them."""
    _use(client, database)
    keys, complete = _scan(client, f"*{RESULTS}*", until, SAMPLE)
    sample = keys[:SAMPLE]
    left = _each(client, "pttl", sample)
    # -2: it is gone since
    return Results(sum(one != -2 for one in left), left.count(-1), complete and len(sample) == len(keys))  # noqa: PLR2004
