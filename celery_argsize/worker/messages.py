"""What goes through the pipe from children to the main process: a length, then a tuple in marshal's format.

Both ends are the same Python. Who writes and reads is in ``handoff``.
"""

from __future__ import annotations

import marshal
import struct
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from celery_argsize.figures.counters import Exemplar, Extreme, TaskStats
from celery_argsize.figures.origins import Sighting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from celery_argsize.figures.counters import Rules, Tally
    from celery_argsize.measuring.measurement import Plain, PlainPart

_T = TypeVar("_T")

_LENGTH: Final = struct.Struct("<H")
_FORMAT: Final = 2  # later ones look for what comes twice, which takes longer than it saves
#: Counters or maxima in one message of sums; with names and ids bounded (recorder), it stays under PIPE_BUF anywhere.
_FIELDS_A_MESSAGE: Final = 2


def plain(measurement: Plain) -> Plain:
    """*measurement* as marshal takes it: it refuses tuples with names."""
    task, task_id, args, kwargs, when, origin = measurement
    return task, task_id, _plain_part(args), _plain_part(kwargs), when, origin


def _plain_part(part: PlainPart) -> PlainPart:
    size, verdict, header, levels, limit, shape = part
    return size and (size[0], size[1]), verdict, header, levels, limit, shape and (*shape,)


def pack(content: tuple[Any, ...]) -> bytes:
    """The message that says *content*."""
    data = marshal.dumps(content, _FORMAT)
    return _LENGTH.pack(len(data)) + data


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole messages in *data*, without their lengths, and what is left of an unfinished one."""
    found, at = [], 0
    while at + _LENGTH.size <= len(data):
        begin = at + _LENGTH.size
        end = begin + _LENGTH.unpack_from(data, at)[0]
        if end > len(data):
            break
        found.append(data[begin:end])
        at = end
    return found, data[at:]


def unpack(data: bytes, into: Tally, rules: Rules) -> None:
    """Add what a message says *into* a tally."""
    content = marshal.loads(data)  # noqa: S302 - our own child's
    if len(content) == 2:  # noqa: PLR2004 - sightings, see chunks
        host, sightings = content
        into.origins.merge({host: {field: Sighting(*seen) for field, seen in sightings.items()}})
    elif len(content) == 4:  # noqa: PLR2004 - sums, see chunks
        into.merge([(content[0], _stats(*content[1:]))])
    else:
        into.add(content, rules)


def _stats(counts: dict[str, int], maxima: dict[str, Any], exemplars: dict[str, Any]) -> TaskStats:
    return TaskStats(
        counts,
        {field: Extreme(*seen) for field, seen in maxima.items()},
        {field: Exemplar(*seen) for field, seen in exemplars.items()},
    )


def chunks(tally: Tally) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """What messages must say to add up to *tally*, each with the dict that it empties: delete its keys there then."""
    for host, sightings in [*tally.origins.hosts.items()]:
        for field, seen in [*sightings.items()]:
            yield (host, {field: tuple(seen)}), {field: sightings}
    for name, stats in [*tally.tasks.items()]:
        for chunk in _some_of(stats.counts):
            yield (name, chunk, {}, {}), dict.fromkeys(chunk, stats.counts)
        for some in _some_of(stats.maxima):
            yield (name, {}, {field: (*seen,) for field, seen in some.items()}, {}), dict.fromkeys(some, stats.maxima)
        for few in _some_of(stats.exemplars):
            yield (name, {}, {}, {field: (*seen,) for field, seen in few.items()}), dict.fromkeys(few, stats.exemplars)


def _some_of(fields: Mapping[str, _T]) -> Iterator[dict[str, _T]]:
    rest = iter([*fields.items()])
    while chunk := dict(islice(rest, _FIELDS_A_MESSAGE)):
        yield chunk
