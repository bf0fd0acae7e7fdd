"""How long does measuring take? Six shapes of arguments, from 10 KB to 100 MB, beside the encoders that one might use.

Each value is fresh from Celery's own decoder, as a task gets it, and encoded once: a string that was encoded before
keeps its UTF-8, and encoding it again is faster than it ever is for a task. The decoder's time is taken, too. One
shape after another has a forked child of its own; the encoders take turns. Python's garbage collector rests, for all.

*With a cut repr*: what a task pays whose repr Celery cut, which is measured as well (``measure_celery_task_size``).
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson
from arguments import KB, MB, SHAPES, label
from harness import Answer, Chart, Claim, run
from kombu.utils.json import dumps, loads
from weigh import cut_header, in_child

from celery_argsize.measuring.json_size import measure
from celery_argsize.worker.recorder import _part

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Characters, and how often each is measured.
FULL: Final = {10 * KB: 41, 100 * KB: 21, MB: 9, 10 * MB: 3, 100 * MB: 1}
SMOKE: Final = {10 * KB: 3, 100 * KB: 1}

#: Where "at least 10 times faster than json.dumps" begins.
FROM: Final = 100 * KB

OURS, CUT, ORJSON, JSON, DECODE = "measured", "measured, with a cut repr", "orjson.dumps", "json.dumps", "decoded"


def times(shape: str, size: int, rounds: int) -> dict[str, float]:
    """Median seconds, by what was done. Runs in a child."""
    gc.disable()
    args = SHAPES[shape](size)
    header = cut_header(args, 1024)
    body = dumps(args)  # as Celery sends it
    del args
    encoders: dict[str, Callable[[Any], object]] = {
        OURS: measure,
        ORJSON: orjson.dumps,
        JSON: json.dumps,
        CUT: partial(_part, header=header),
    }
    taken: dict[str, list[float]] = {name: [] for name in (*encoders, DECODE)}
    for number in range(rounds + 1):
        for name, encode in encoders.items():
            began = time.perf_counter()
            value = loads(body)
            decoded = time.perf_counter()
            encode(tuple(value))
            ended = time.perf_counter()
            if number or rounds == 1:  # the first warms up
                taken[DECODE].append(decoded - began)
                taken[name].append(ended - decoded)
            del value
        if rounds == 1:
            break
    return {name: statistics.median(found) for name, found in taken.items()}


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - as the harness calls it
    """Measure all shapes and sizes."""
    sizes = SMOKE if smoke else FULL
    found: dict[str, dict[int, dict[str, float]]] = {
        shape: {size: in_child(partial(times, shape, size, rounds)) for size, rounds in sizes.items()}
        for shape in SHAPES
    }
    lines = {shape: [(label(size), by[size][OURS] / by[size][ORJSON]) for size in sizes] for shape, by in found.items()}
    return Answer(
        title="How long does measuring take?",
        head=[
            "µs",
            *(OURS, CUT, ORJSON, JSON, DECODE),
            "in orjson.dumps",
            "faster than json.dumps",
            "of the decoding",
            "the same, with a cut repr",
        ],
        rows=[row(f"{label(size)}, {shape}", found[shape][size]) for size in sizes for shape in SHAPES],
        claims=[claim for size in sizes for claim in claims(size, {shape: by[size] for shape, by in found.items()})],
        chart=Chart(
            "Time to measure arguments, in orjson.dumps of the same",
            "size of args",
            "times one orjson.dumps",
            lines,
            limit=1.15,
        ),
        notes=[
            "Times are medians. Values are fresh: decoded from JSON, and then encoded once.",
            "orjson.dumps is the floor: nothing here measures faster than it encodes, unless by needing less memory.",
        ],
    )  # fmt: skip


def row(name: str, taken: Mapping[str, float]) -> list[str]:
    """One row of the table."""
    micros = [taken[what] * 1e6 for what in (OURS, CUT, ORJSON, JSON, DECODE)]
    return [
        name,
        *(f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in micros),
        f"{taken[OURS] / taken[ORJSON]:.2f}",
        f"{taken[JSON] / taken[OURS]:.1f}",
        f"{taken[OURS] / taken[DECODE]:.1%}",
        f"{taken[CUT] / taken[DECODE]:.0%}",
    ]


def claims(size: int, found: Mapping[str, dict[str, float]]) -> list[Claim]:
    """The targets for one size, each for the shape that is worst."""

    def worst(these: str, those: str, target: float, what: str, *, at_least: bool = False) -> Claim:
        ratios = {shape: taken[these] / taken[those] for shape, taken in found.items()}
        shape = (min if at_least else max)(ratios, key=lambda name: ratios[name])
        return Claim(f"{label(size)}: {what}, worst of all ({shape})", ratios[shape], target, at_least=at_least)

    return [
        worst(OURS, ORJSON, 1.15, "in orjson.dumps"),
        worst(OURS, DECODE, 0.15, "of the decoding"),
        *([worst(JSON, OURS, 10.0, "faster than json.dumps", at_least=True)] if size >= FROM else []),
    ]


if __name__ == "__main__":
    sys.exit(run(answer))
