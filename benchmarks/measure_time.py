"""How long does measuring take? Six shapes of arguments from 10 KB to 100 MB, compared with JSON encoders.

Each value comes fresh from Celery's own decoder, as a task gets it, and is measured or encoded once. Python keeps the
UTF-8 form of a string that orjson has encoded: encoding it again would be faster. The decoder is timed too. Each shape
has a forked child of its own, in which the encoders take turns. Garbage collection is off for all.

*With a cut repr*: the time for a part whose repr Celery cut, so that the length of its whole repr is counted too.
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

from celery_argsize.measuring.json_size import measure_json_size
from celery_argsize.measuring.measurement import measure_part
from celery_argsize.measuring.walk import compiled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Size in characters → how often it is measured.
FULL: Final = {10 * KB: 41, 100 * KB: 21, MB: 9, 10 * MB: 3, 100 * MB: 1}
SMOKE: Final = {10 * KB: 3, 100 * KB: 1}

#: The target "10 times faster than json.dumps" holds from this size on.
FROM: Final = 100 * KB

OURS, CUT, ORJSON, JSON, DECODE = "measured", "measured, with a cut repr", "orjson.dumps", "json.dumps", "decoded"


def times(shape: str, size: int, rounds: int) -> dict[str, float]:
    """Median seconds of each encoder and of the decoder. Runs in a child."""
    gc.disable()
    args = SHAPES[shape](size)
    header = cut_header(args, 1024)
    body = dumps(args)  # the JSON that Celery sends
    del args
    encoders: dict[str, Callable[[Any], object]] = {
        OURS: measure_json_size,
        ORJSON: orjson.dumps,
        JSON: json.dumps,
        CUT: partial(measure_part, header=header),
    }
    taken: dict[str, list[float]] = {name: [] for name in (*encoders, DECODE)}
    for number in range(rounds + 1):
        for name, encode in encoders.items():
            began = time.perf_counter()
            value = loads(body)
            decoded = time.perf_counter()
            encode(tuple(value))
            ended = time.perf_counter()
            if number or rounds == 1:  # the first round only warms up
                taken[DECODE].append(decoded - began)
                taken[name].append(ended - decoded)
            del value
        if rounds == 1:
            break
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - harness.run calls it with one argument
    """Measure all shapes and sizes."""
    sizes = SMOKE if smoke else FULL
    medians: dict[str, dict[int, dict[str, float]]] = {
        shape: {size: in_child(partial(times, shape, size, rounds)) for size, rounds in sizes.items()}
        for shape in SHAPES
    }
    lines = {
        shape: [(label(size), by[size][OURS] / by[size][ORJSON]) for size in sizes] for shape, by in medians.items()
    }
    return Answer(
        title="How long does measuring take?",
        head=[
            "µs",
            *(OURS, CUT, ORJSON, JSON, DECODE),
            "measured / orjson.dumps",
            "json.dumps / measured",
            "measured / decoded",
            "with a cut repr / decoded",
        ],
        rows=[row(f"{label(size)}, {shape}", medians[shape][size]) for size in sizes for shape in SHAPES],
        claims=[claim for size in sizes for claim in claims(size, {shape: by[size] for shape, by in medians.items()})],
        chart=Chart(
            "Time to measure arguments, compared with orjson.dumps",
            "size of args",
            "multiple of orjson.dumps",
            lines,
            limit=1.15,
        ),
        notes=[
            "Times are medians. Each value was decoded from JSON and then measured or encoded once.",
            f"Measured by the {'pure-Python' if compiled is None else 'compiled'} walk.",
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


def claims(size: int, medians: Mapping[str, dict[str, float]]) -> list[Claim]:
    """The targets for one size, each for the worst shape."""

    def worst(numerator: str, denominator: str, target: float, *, at_least: bool = False) -> Claim:
        ratios = {shape: taken[numerator] / taken[denominator] for shape, taken in medians.items()}
        shape = (min if at_least else max)(ratios, key=lambda name: ratios[name])
        figure = f"{label(size)}: {numerator} / {denominator}, worst shape ({shape})"
        return Claim(figure, ratios[shape], target, at_least=at_least)

    return [
        worst(OURS, ORJSON, 1.15),
        worst(OURS, DECODE, 0.15),
        *([worst(JSON, OURS, 10.0, at_least=True)] if size >= FROM else []),
    ]


if __name__ == "__main__":
    sys.exit(run(answer))
