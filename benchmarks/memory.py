"""How much memory does measuring 100 MB of arguments take? That of the arguments themselves does not count.

Compares four kinds of work on six shapes of arguments: ``measure_json_size``; all the work for a task whose
repr Celery cut at 1,024 characters, which also counts the length of the whole repr; json.dumps; and orjson.dumps. Each
runs once in a forked process of its own that has done it on small arguments before. The heap of that process has random
holes, because how much new memory is touched depends on them. Resident memory is read before the work and at its peak.
Linux only.
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
from celery_argsize.measuring.json_size import measure_json_size
from celery_argsize.measuring.measurement import Measurement
from celery_argsize.measuring.walk import compiled
from celery_argsize.worker.recorder import measure_celery_task_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: The target: MiB that measuring may take.
MOST: Final = 0.2
#: Processes for each of our figures. json and orjson take a hundred times as much, and run once.
ROUNDS: Final = 3

OURS: Final = ("measure_json_size", "a task with a cut repr")
THEIRS: Final = ("json.dumps", "orjson.dumps")


def _task(args: tuple[Any, ...]) -> Callable[[], object]:
    """Work that measures *args* as those of a task whose repr was cut."""
    request = SimpleNamespace(argsrepr=cut_header(args, DEFAULT_LIMIT), kwargsrepr="{}", origin="gen1@web-1")
    return partial(measure_celery_task_size, SimpleNamespace(name="music.scan", request=request), "id", args, {})


#: Name of the work → function that prepares it for the given args, and returns the work to run.
WORK: Final[Mapping[str, Callable[[tuple[Any, ...]], Callable[[], object]]]] = {
    OURS[0]: lambda args: partial(measure_json_size, args),
    OURS[1]: _task,
    THEIRS[0]: lambda args: partial(json.dumps, args, ensure_ascii=False, separators=(",", ":")),
    THEIRS[1]: lambda args: partial(orjson.dumps, args),
}


def weigh(name: str, args: tuple[Any, ...], small: tuple[Any, ...], number: int) -> tuple[float, int]:
    """MiB that the work *name* takes for *args*, and the number of characters of JSON that it measured.

    *small* are arguments for the warm-up. *number* is the seed for the holes in the heap.
    """
    WORK[name](small)()
    work = WORK[name](args)
    sizes = random.Random(number)
    heap = [bytes(sizes.randrange(64 * KB)) for _ in range(64)]
    del heap[::2]  # the holes
    weighed = Weighed(trim=True)
    result = work()
    return weighed.more(), _chars(result)


def _chars(result: Any) -> int:
    """Characters of JSON in the *result* of any of the works."""
    if isinstance(result, Measurement):
        if result.args.verdict not in CUTS:
            raise ValueError(result.args.verdict)
        return -1 if result.args.size is None else result.args.size.chars
    if isinstance(result, int):
        return result
    return len(result.decode() if isinstance(result, bytes) else result)


def weigh_all(shape: str, size: int, rounds: int) -> dict[str, list[float]]:
    """MiB that each work takes for about *size* characters of *shape*, one figure for each run in a child.

    Raises:
        ValueError: the works do not agree on the number of characters.
    """
    gc.disable()  # it would scan the growing arguments again and again while they are made
    args, small = SHAPES[shape](size), SHAPES[shape](8 * KB)
    gc.freeze()
    gc.enable()
    results = {
        name: [in_child(partial(weigh, name, args, small, n)) for n in range(rounds if name in OURS else 1)]
        for name in WORK
    }
    if len({chars for weighed in results.values() for _, chars in weighed}) != 1:
        raise ValueError(results)
    return {name: [mib for mib, _ in weighed] for name, weighed in results.items()}


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - harness.run calls it with one argument
    """Measure the memory of all works, and compare."""
    size, rounds = (MB, 1) if smoke else (100 * MB, ROUNDS)
    weighed = {shape: in_child(partial(weigh_all, shape, size, rounds)) for shape in SHAPES}
    medians = {
        shape: {name: statistics.median(values) for name, values in taken.items()} for shape, taken in weighed.items()
    }
    return Answer(
        title=f"How much memory does measuring {size // MB} MB of arguments take?",
        head=["MiB at the peak", *WORK],
        rows=[
            [shape, *(spread(taken[name]) for name in OURS), *(f"{taken[name][0]:,.0f}" for name in THEIRS)]
            for shape, taken in weighed.items()
        ],
        claims=[
            Claim(f"{shape}, the larger of {' and '.join(OURS)}", max(taken[name] for name in OURS), MOST, "MiB")
            for shape, taken in medians.items()
        ],
        chart=Chart(
            f"Memory used to measure {size // MB} MB of arguments",
            "MiB at the peak",
            "",
            {name: [(shape, taken[name]) for shape, taken in medians.items()] for name in WORK},
            bars=True,
            log="x",
            limit=MOST,
        ),
        notes=[
            f"Measured by the {'pure-Python' if compiled is None else 'compiled'} walk.",
            "The compiled walk makes no copy. The pure-Python one makes some: JSON, its UTF-8, and a marshaled one.",
        ],
    )


if __name__ == "__main__":
    sys.exit(run(answer))
