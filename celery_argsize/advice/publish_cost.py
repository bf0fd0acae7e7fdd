"""How fast saferepr is on this machine, for ``plans`` to predict publish times.

Checked with 50 kinds of arguments: benchmarks/ADVICE.md.
"""

from __future__ import annotations

from time import thread_time
from timeit import repeat
from typing import Any, Final

from celery.utils.saferepr import saferepr

from celery_argsize.advice.plans import ReprSpeed

#: Members of the timed lists and dicts.
MEMBERS: Final = 200
#: Characters of the timed text.
CHARACTERS: Final = 64 * 1024
#: How often a value is timed: the shortest time is disturbed least.
ROUNDS: Final = 5


def measure_repr_speed() -> ReprSpeed:
    """Time saferepr; takes about 20 ms of CPU time."""
    empty = _seconds([])
    member = (_seconds([1_234_567] * MEMBERS) - empty) / MEMBERS
    key = (_seconds({f"key{number}": 1_234_567 for number in range(MEMBERS)}) - empty) / MEMBERS - member
    # n lists in a list take n * (container + member) + n² * step
    once, twice = (_seconds([[0] for _ in range(count)]) - empty for count in (MEMBERS, 2 * MEMBERS))
    step = (twice - 2 * once) / (2 * MEMBERS**2)
    container = once / MEMBERS - step * MEMBERS - member
    byte = (_seconds(["x" * CHARACTERS]) - empty) / CHARACTERS
    return ReprSpeed(*(max(0.0, seconds) for seconds in (member, key, container, step, byte)))


def _seconds(value: Any) -> float:
    """CPU time of saferepr."""
    return min(repeat(lambda: saferepr(value, 2 * CHARACTERS), timer=thread_time, repeat=ROUNDS, number=1))
