"""What a repr costs a producer: Celery's own saferepr, timed on this machine, on a payload of the shape that was seen.

saferepr takes time that grows with the square of the containers, so no formula from another machine would do. Payloads
that would take long are timed at a fraction of their size, and extrapolated from how the time grew up to there.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

from celery.utils.saferepr import saferepr

if TYPE_CHECKING:
    from celery_argsize.advice.plans import Load

#: The smallest fraction of a payload that is timed, as a power of one half.
SMALLEST: Final = 6

#: Seconds that a timing may take, about, once the budget is spent: there may be thousands to come.
HURRIED: Final = 0.001


class PublishTimer:
    """Times reprs; a ``PublishTime``. What was timed once is remembered."""

    def __init__(self, *, cap: float = 0.5, budget: float = 10.0) -> None:
        """*cap*: seconds that one timing may take, about; *budget*: those for all. Beyond it, fractions have to do."""
        self._cap = cap
        self._left = budget
        self._known: dict[tuple[Any, ...], float] = {}

    def __call__(self, load: Load, limit: int, levels: int) -> float:
        """Seconds that saferepr takes for a payload like *load* under *limit* and *levels*."""
        key = (*load, limit, levels)
        if key not in self._known:
            began = time.thread_time()
            self._known[key] = self._time(load, limit, levels)
            self._left -= time.thread_time() - began
        return self._known[key]

    def _time(self, load: Load, limit: int, levels: int) -> float:
        """Time ever larger fractions, up to the whole or to what there is time for."""
        cap, runs = (min(self._cap, max(0.005, self._left)), 3) if self._left > 0 else (HURRIED, 1)
        seconds = 0.0
        for halvings in range(SMALLEST, -1, -1):
            scale = 0.5**halvings
            half, seconds = seconds, _best(payload(_scaled(load, scale)), math.ceil(limit * scale), levels, runs)
            # seconds = linear + square, half = linear / 2 + square / 4
            square = min(seconds, max(0.0, 2 * seconds - 4 * half)) if half else 0.0
            if 2 * seconds + 2 * square > cap:
                return float((seconds - square) / scale + square / scale**2)
        return seconds


def _best(args: tuple[Any, ...], limit: int, levels: int, runs: int) -> float:
    """Seconds for one repr: the best of some runs, which is the least disturbed."""
    times = []
    for _ in range(runs):
        began = time.thread_time()
        saferepr(args, limit, maxlevels=levels)
        times.append(time.thread_time() - began)
        if len(times) > 1 and min(times) > 0.05:  # noqa: PLR2004 - steady; one alone may have had the garbage collector in it
            break
    return min(times)


def _scaled(load: Load, scale: float) -> Load:
    return load._replace(
        need=round(load.need * scale),
        commas=round(load.commas * scale),
        keys=round(load.keys * scale),
        texts=round(load.texts * scale),
        containers=max(load.levels, round(load.containers * scale)),
        pile=round(load.pile * scale**2),
    )


def payload(load: Load) -> Any:
    """A part whose repr is about like *load*: as many containers, dict items, texts and numbers, as long, as wide.

    The deepest containers hold all scalars; they are spread over as many groups as pile up in the same way.
    """
    scalars = _scalars(load)
    size = len(scalars[0]) if scalars and isinstance(scalars[0], str) else 0
    if load.levels <= 1:
        return dict(zip(_keys(len(scalars), size), scalars, strict=True)) if load.keys else tuple(scalars)
    groups = _groups(load) if load.levels > 2 else 0  # noqa: PLR2004 - the tuple, groups, and the containers in them
    leaves = _leaves(load, max(1, load.containers - groups - max(1, load.levels - 2)), scalars, size)
    if not groups:
        return tuple(leaves)
    nested: list[Any] = [leaves[start::groups] for start in range(groups)]
    if load.keys > len(scalars):  # some keys are those of containers
        nested = [dict(zip(_keys(len(group), size), group, strict=True)) for group in nested]
    for _ in range(load.levels - 3):
        nested = [nested]
    return tuple(nested)


def _scalars(load: Load) -> list[Any]:
    """Texts that make up the length, and numbers."""
    count = load.commas + 1  # as every container but the outermost is a member too
    texts = min(load.texts, count)
    left = load.need - 2 * (load.containers + load.commas + load.keys)
    digits = min(7, max(1, round(left / (count + load.keys))))
    size = max(0, round((left - digits * (count - texts)) / max(1, texts + load.keys)) - 2)
    text = load.widest.rjust(size, "x")[:size]  # one wide character is enough to make all of it wide
    return [text] * texts + [10 ** (digits - 1)] * (count - texts)


def _keys(count: int, size: int) -> list[str]:
    return [f"{at:x}".rjust(size, "k") for at in range(count)]


def _groups(load: Load) -> int:
    """In how many groups *n* containers pile up as much as in *load*: g groups give n * (g + n/g)."""
    count = max(1, load.containers - load.levels)
    half = load.pile / count / 2
    return max(1, min(math.isqrt(count), round(half - math.sqrt(max(0.0, half * half - count)))))


def _leaves(load: Load, count: int, scalars: list[Any], size: int) -> list[Any]:
    """*count* containers that hold all *scalars*, and as many dict items as *load* has."""
    items = min(load.keys, len(scalars))
    dicts: list[Any] = [{} for _ in range(min(count, math.ceil(count * items / len(scalars))))]
    lists: list[Any] = [[] for _ in range(count - len(dicts))]
    for at in range(items):
        dicts[at % len(dicts)][f"{at // len(dicts):x}".rjust(size, "k")] = scalars[at]
    rest = scalars[items:]
    for start, members in enumerate(lists):
        members.extend(rest[start :: len(lists)])
    return [*dicts, *lists] if lists else [*dicts, *rest]
