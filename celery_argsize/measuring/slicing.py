"""Cutting a value up into pieces that take little memory to encode, one after another.

Pure. What the pieces' sizes add up to is ``measure``'s business.
"""

from __future__ import annotations

import codecs
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Characters (strings) or estimated bytes (containers) above which a value is encoded piece by piece.
SLICE: Final = 128 * 1024

#: Members encoded at once, at most: orjson sets aside 256 bytes for each.
SLICE_MEMBERS: Final = 4096

#: Characters of a long string that are encoded at once: orjson sets aside 8 times the UTF-8 length of a string, and
#: one character beyond the basic plane makes the slice take four bytes for each.
STRING_SLICE: Final = 16 * 1024

#: Levels down to which containers are cut up. Deeper ones, and cycles, are left to the encoder, which ends them.
SLICE_DEPTH: Final = 16

#: Estimated bytes up to which a member beside big ones is encoded together with its neighbors.
SMALL_MEMBER: Final = 64

#: Containers of up to this many members may be mixed: each text in them is looked at, each member cut up if need be.
SAMPLE: Final = 16

#: What args and kwargs are, and what is cut up.
PARTS: Final = (list, tuple, dict)

#: Stands for a container that is cut up, before its members (see ``slices``).
FRAME: Final = object()


def estimate(obj: Any, depth: int = SLICE_DEPTH) -> int:
    """Roughly how many bytes *obj* encodes to, from its members; cheap, and only used to choose slices.

    Of up to ``SAMPLE`` members each text counts with its length (an id beside a blob); the containers among them, and
    the members of longer containers, are mostly alike, so that the first and last stand for all. A guess too low costs
    memory for that value, never a wrong size.
    """
    kind = type(obj)
    if kind is str or kind is bytes:
        return len(obj)
    if kind is dict:
        members = obj.values()
    elif kind is list or kind is tuple:
        members = obj
    else:
        return 8
    count = len(obj)
    if not count or not depth:
        return 8 * count
    if count > SAMPLE:
        members = [*islice(members, 2)] if kind is dict else (obj[0], obj[-1])
    total = 8 * len(members)
    inner = []
    for member in members:
        kind = type(member)
        if kind is str or kind is bytes:
            total += len(member) if len(member) <= STRING_SLICE else len(member) + SLICE  # is encoded on its own
        elif kind is list or kind is dict or kind is tuple:
            inner.append(member)
    if inner:
        total += _estimate_alike(inner, depth - 1, one=count > SAMPLE) * len(inner)
    return total * count // len(members)


def _estimate_alike(containers: list[Any], depth: int, *, one: bool) -> int:
    """What one of *containers* encodes to, by the first and the last; by the last, where both look the same."""
    first, last = containers[0], containers[-1]
    if first is last or (one and type(first) is type(last) and len(first) == len(last)):
        return estimate(last, depth)
    return (estimate(first, depth) + estimate(last, depth)) // 2


def slices(obj: Any, level: int = 1, size: int | None = None) -> Iterator[tuple[Any, int, int]]:
    """What to encode one after another, so that none needs much more than a slice: (piece, frame, level).

    The sizes of the pieces, less *frame* each (what encoding it adds to what it stands for: quotes, brackets, commas),
    add up to the size of *obj*. A container that is cut up comes as ``FRAME`` and then as its members; its frame is
    negative: brackets and commas. *level* is that of the containers in a piece: the outermost is at level 1. *size* is
    the estimate, where it is known.
    """
    kind, depth = type(obj), SLICE_DEPTH - level + 1
    if kind is str and len(obj) > SLICE:
        yield "", 0, level
        for start in range(0, len(obj), STRING_SLICE):
            yield obj[start : start + STRING_SLICE], 2, level
    elif kind is bytes and len(obj) > SLICE:
        yield from _bytes_slices(obj, level)
    elif not depth or kind not in PARTS or not obj or (guess := size or estimate(obj, depth)) <= SLICE:
        yield obj, 0, level
    else:
        yield FRAME, -1 - len(obj), level
        step = 1 if len(obj) <= SAMPLE else max(1, min(SLICE_MEMBERS, SLICE * len(obj) // guess))
        yield from (_dict_slices if kind is dict else _list_slices)(obj, depth, level, step)


def _bytes_slices(obj: bytes, level: int) -> Iterator[tuple[Any, int, int]]:
    """What kombu sends for bytes: the text they hold in UTF-8, else base64, in an envelope."""
    view, decoder = memoryview(obj), codecs.getincrementaldecoder("utf-8")()
    starts = range(0, len(obj), STRING_SLICE)
    try:
        for start in starts:
            decoder.decode(view[start : start + STRING_SLICE], final=start == starts[-1])
    except UnicodeDecodeError:
        coded = (len(obj) + 2) // 3 * 4 - 4  # the envelope below has base64 of one byte, which is 4 characters
        yield b"\xff", -coded, level
        return
    yield b"", 0, level
    decoder.reset()
    for start in starts:
        yield decoder.decode(view[start : start + STRING_SLICE], final=start == starts[-1]), 2, level


def _list_slices(obj: Any, depth: int, level: int, step: int) -> Iterator[tuple[Any, int, int]]:
    """*step*: how many members to encode at once; 1 (each cut up in turn) where single members can be big."""
    if step == 1:
        for run, size in _few(obj, depth):
            if len(run) == 1:
                yield from slices(run[0], level + 1, size)
            else:
                yield run, len(run) + 1, level
        return
    for start in range(0, len(obj), step):
        chunk = obj[start : start + step]
        yield chunk, len(chunk) + 1, level


def _dict_slices(obj: dict[Any, Any], depth: int, level: int, step: int) -> Iterator[tuple[Any, int, int]]:
    items = iter(obj.items())
    if step == 1:
        for pairs, size in _few(items, depth):
            if len(pairs) == 1:
                ((key, value),) = pairs
                yield {key: 0}, 3, level  # "{" + key + ":0}"
                yield from slices(value, level + 1, size)
            else:
                yield _checked(dict(pairs), len(pairs)), len(pairs) + 1, level
        return
    for start in range(0, len(obj), step):
        count = min(step, len(obj) - start)
        yield _checked(dict(islice(items, count)), count), count + 1, level


def _checked(chunk: dict[Any, Any], count: int) -> dict[Any, Any]:
    if len(chunk) != count:  # keys that were not equal when they were put there
        raise ValueError
    return chunk


def _few(members: Iterable[Any], depth: int) -> Iterator[tuple[list[Any], int | None]]:
    """Runs of small *members* (or dict items), and the others one by one, with their estimate."""
    run: list[Any] = []
    for member in members:
        size = estimate(member, depth)
        if size > SMALL_MEMBER:
            if run:
                yield run, None
            yield [member], size
            run = []
        else:
            run.append(member)
            if len(run) == SLICE_MEMBERS:
                yield run, None
                run = []
    if run:
        yield run, None
