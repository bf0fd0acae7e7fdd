"""Cuts a value into pieces that take little memory to encode. ``json_size`` and ``repr_shape`` add them up."""

from __future__ import annotations

import codecs
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: A text of more characters, or a container of more estimated bytes, is cut up.
SLICE: Final = 128 * 1024
#: Most members in one piece: orjson sets aside 256 bytes for each.
SLICE_MEMBERS: Final = 4096
#: Characters of a long text in one piece: orjson sets aside 8 times
#: their UTF-8 length, and one character beyond the basic plane makes
#: Python use four bytes for each.
STRING_SLICE: Final = 16 * 1024
#: Levels down to which containers are cut up. Deeper ones go to the encoder
#: whole. It raises an error for cycles.
SLICE_DEPTH: Final = 16
#: A member of up to this many estimated bytes shares a piece with its neighbors.
SMALL_MEMBER: Final = 64
#: Up to this many members are all looked at, as small and big ones may be mixed.
SAMPLE: Final = 16

#: The types of args and kwargs, and of containers that are cut up.
PARTS: Final = (list, tuple, dict)
#: Stands for a container that is cut up. Its members follow.
FRAME: Final = object()


def estimate(obj: Any, depth: int = SLICE_DEPTH) -> int:
    """Roughly the bytes that *obj* encodes to. Cheap; too low a guess costs memory, never a wrong size.

    Up to ``SAMPLE`` members are all looked at, but of the containers among them
    only the first and the last. Of more members, two stand for all.
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
        total += _mean_estimate(inner, depth - 1, alike=count > SAMPLE) * len(inner)
    return total * count // len(members)


def _mean_estimate(containers: list[Any], depth: int, *, alike: bool) -> int:
    """Mean of the first and the last of *containers*. *alike*: of the last, if both look equal."""
    first, last = containers[0], containers[-1]
    if first is last or (alike and type(first) is type(last) and len(first) == len(last)):
        return estimate(last, depth)
    return (estimate(first, depth) + estimate(last, depth)) // 2


def slices(obj: Any, level: int = 1, size: int | None = None) -> Iterator[tuple[Any, int, int]]:
    """Pieces of *obj*, to be encoded one after another: ``(piece, frame, level)``.

    *frame* is what encoding the piece adds (quotes, brackets, commas): the sizes of all pieces, less their frames, are
    the size of *obj*. A container that is cut up comes as ``FRAME``, with its own brackets and commas as a negative
    frame, and then as its members. *level* is that of containers in the piece; the outermost is 1. *size*: an
    estimate, if there is one.
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
    """What kombu sends for bytes: their text, if they are UTF-8; else base64 in an envelope."""
    view, decoder = memoryview(obj), codecs.getincrementaldecoder("utf-8")()
    starts = range(0, len(obj), STRING_SLICE)
    try:
        for start in starts:
            decoder.decode(view[start : start + STRING_SLICE], final=start == starts[-1])
    except UnicodeDecodeError:
        coded = (len(obj) + 2) // 3 * 4 - 4  # less the base64 of the one byte in the piece
        yield b"\xff", -coded, level
        return
    yield b"", 0, level
    decoder.reset()
    for start in starts:
        yield decoder.decode(view[start : start + STRING_SLICE], final=start == starts[-1]), 2, level


def _list_slices(obj: Any, depth: int, level: int, step: int) -> Iterator[tuple[Any, int, int]]:
    """*step*: members in a piece. With 1, big members are cut up in turn and small ones share a piece."""
    if step == 1:
        for run, size in _runs(obj, depth):
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
        for pairs, size in _runs(items, depth):
            if len(pairs) == 1:
                ((key, value),) = pairs
                yield {key: 0}, 3, level  # "{" + key + ":0}"
                yield from slices(value, level + 1, size)
            else:
                yield _dict(pairs, len(pairs)), len(pairs) + 1, level
        return
    for start in range(0, len(obj), step):
        count = min(step, len(obj) - start)
        yield _dict(islice(items, count), count), count + 1, level


def _dict(pairs: Iterable[tuple[Any, Any]], count: int) -> dict[Any, Any]:
    result = dict(pairs)
    if len(result) != count:  # keys have become equal since they were added
        raise ValueError
    return result


def _runs(members: Iterable[Any], depth: int) -> Iterator[tuple[list[Any], int | None]]:
    """``(run, None)`` of small *members* (or dict items), and ``([member], estimate)`` of each other one."""
    run: list[Any] = []
    for member in members:
        size = estimate(member, depth)
        small = size <= SMALL_MEMBER
        if run and (not small or len(run) == SLICE_MEMBERS):
            yield run, None
            run = []
        if small:
            run.append(member)
        else:
            yield [member], size
    if run:
        yield run, None
