"""How much memory it takes to measure 100 MB of arguments, beyond that of the arguments themselves.

Six shapes of arguments. Weighed are ``measure``, and all that a task pays whose repr Celery cut at 1,024 characters, as
the length of the whole repr is worked out there too; to compare, json.dumps and orjson.dumps. Each runs once, in a
forked process of its own that has done it on small arguments before, and whose heap has holes, others each time: how
much memory is touched depends on them. Its resident memory is read before, and at its peak. Linux only.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import sys
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import orjson
from arguments import KB, MB, SHAPES
from harness import Answer, Chart, Claim, run, spread
from weigh import Weighed, cut_header, in_child

from celery_argsize.measuring.cuts import CUTS, DEFAULT_LIMIT
from celery_argsize.measuring.json_size import Size, measure
from celery_argsize.measuring.measurement import Measurement
from celery_argsize.measuring.slicing import STRING_SLICE
from celery_argsize.worker.recorder import measure_celery_task_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: MiB that measuring may take.
MOST: Final = 1.0
#: Fresh processes for each figure of ours. The others, a hundred times as large and seconds long, are weighed once.
ROUNDS: Final = 3

OURS: Final = ("measure", "a task with a cut repr")
THEIRS: Final = ("json.dumps", "orjson.dumps")


def _task(args: tuple[Any, ...]) -> Callable[[], object]:
    """Measures *args* as those of a task that came with a cut repr."""
    request = SimpleNamespace(argsrepr=cut_header(args, DEFAULT_LIMIT), kwargsrepr="{}", origin="gen1@web-1")
    return partial(measure_celery_task_size, SimpleNamespace(name="music.scan", request=request), "id", args, {})


#: By name: prepares what is to be weighed.
WORK: Final[Mapping[str, Callable[[tuple[Any, ...]], Callable[[], object]]]] = {
    OURS[0]: lambda args: partial(measure, args),
    OURS[1]: _task,
    THEIRS[0]: lambda args: partial(json.dumps, args, ensure_ascii=False, separators=(",", ":")),
    THEIRS[1]: lambda args: partial(orjson.dumps, args),
}


def weigh(name: str, args: tuple[Any, ...], small: tuple[Any, ...], number: int) -> tuple[float, int]:
    """MiB that the work *name* takes with *args*, and how many characters of JSON it found."""
    WORK[name](small)()
    work = WORK[name](args)
    sizes = random.Random(number)
    heap = [bytes(sizes.randrange(64 * KB)) for _ in range(64)]
    del heap[::2]  # the holes
    weighed = Weighed(trim=True)
    found = work()
    return weighed.more(), _chars(found)


def _chars(found: Any) -> int:
    if isinstance(found, Measurement):
        if found.args.verdict not in CUTS:
            raise ValueError(found.args.verdict)
        found = found.args.size
    if isinstance(found, Size):
        return found.chars
    return len(found.decode() if isinstance(found, bytes) else found)


def weigh_all(shape: str, size: int, rounds: int) -> dict[str, list[float]]:
    """MiB that each work takes with about *size* characters of *shape*; each time in a child of this process.

    Raises:
        ValueError: they do not agree on the size.
    """
    gc.disable()  # else it looks through all that is made, again and again
    args, small = SHAPES[shape](size), SHAPES[shape](8 * KB)
    gc.freeze()
    gc.enable()
    found = {
        name: [in_child(partial(weigh, name, args, small, n)) for n in range(rounds if name in OURS else 1)]
        for name in WORK
    }
    if len({chars for weighed in found.values() for _, chars in weighed}) != 1:
        raise ValueError(found)
    return {name: [more for more, _ in weighed] for name, weighed in found.items()}


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - as harness.run calls it
    """Weigh, and compare."""
    size, rounds = (MB, 1) if smoke else (100 * MB, ROUNDS)
    found = {shape: in_child(partial(weigh_all, shape, size, rounds)) for shape in SHAPES}
    medians = {
        shape: {name: statistics.median(values) for name, values in taken.items()} for shape, taken in found.items()
    }
    return Answer(
        title=f"How much memory does measuring {size // MB} MB of arguments take?",
        head=["MiB at the peak", *WORK],
        rows=[
            [shape, *(spread(taken[name]) for name in OURS), *(f"{taken[name][0]:,.0f}" for name in THEIRS)]
            for shape, taken in found.items()
        ],
        claims=[
            Claim(f"{shape}, {' or '.join(OURS)}", max(taken[name] for name in OURS), MOST, "MiB")
            for shape, taken in medians.items()
        ],
        chart=Chart(
            f"Memory that {size // MB} MB of arguments take beyond their own",
            "MiB at the peak",
            "",
            {name: [(shape, taken[name]) for shape, taken in medians.items()] for name in WORK},
            bars=True,
            log="x",
            limit=MOST,
        ),
        notes=[
            (
                f"Of a long text, {STRING_SLICE:,} characters are encoded at a time. They take {STRING_SLICE // KB} KB "
                f"if all are ASCII, {4 * STRING_SLICE // KB} KB if one is an emoji; and their JSON comes on top."
            )
        ],
    )


if __name__ == "__main__":
    sys.exit(run(answer))
