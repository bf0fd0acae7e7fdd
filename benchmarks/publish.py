"""Measures what higher limits cost the process that sends tasks, and whether the advice predicts it.

For six shapes of arguments of 10 KB and 100 KB, ``advise`` for Redis finds the limits that keep the repr whole, and
predicts what they add to a publish. Limits that it warns against are measured too. Three apps take turns: one with
Celery's default limit, one with these limits, and one with the tier of the size guide. The time is the CPU time that
Celery takes to build one message (``create_task_message``).
"""

from __future__ import annotations

import math
import statistics
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "tests"), str(HERE.parent / "scripts")]

from advice import TIME_FACTOR, TOO_SMALL, Seconds, advised, by_turns, limited  # noqa: E402 - see advice.py
from arguments import KB, SHAPES  # noqa: E402
from harness import Answer, Chart, Claim, run, spread  # noqa: E402
from support.simulate import Call, fresh_app, observe, publish, receive  # noqa: E402

from celery_argsize import ReprLimits, TaskAdvice, advise  # noqa: E402
from celery_argsize.advice.advice import recommend  # noqa: E402
from celery_argsize.advice.limits import set_app_limits  # noqa: E402
from celery_argsize.advice.publish_cost import measure_repr_speed  # noqa: E402
from celery_argsize.measuring.cuts import CAUSES  # noqa: E402

if TYPE_CHECKING:
    from celery import Celery

#: Sizes of the arguments in KB of JSON.
SIZES: Final = (10, 100)
#: The limits of the three apps that are timed.
APPS: Final = ("limit 1,024", "limits that keep it whole", "the guide's tier")
HEAD: Final = [
    "args",
    "advice",
    *(APPS[1], "ms", "ms at 1,024", "difference", "predicted", "factor"),
    *(APPS[2], "ms", "repr with that tier"),
]


class Timed(NamedTuple):
    """The results for arguments of one shape and size."""

    name: str
    task: TaskAdvice
    """The advice."""
    limits: ReprLimits
    """The limits that keep the repr whole, advised or not."""
    tier: int
    """The guide's tier, in characters."""
    left: str
    """What happens to the repr with the guide's tier: ``whole``, or ``cut by`` a cause."""
    times: tuple[tuple[float, ...], ...]
    """Seconds to build a message, several for each app."""
    predicted: float
    """Seconds that the limits add to a publish, by the advice."""

    @property
    def medians(self) -> list[float]:
        """Median seconds of each app."""
        return [*map(statistics.median, self.times)]

    @property
    def extra(self) -> Seconds:
        """Seconds that the limits add to a publish: predicted and measured."""
        before, after, _ = self.medians
        return Seconds(self.predicted, after - before)

    @property
    def factor(self) -> float:
        """The factor by which the prediction is off, 1 or more."""
        return math.exp(self.extra.off)

    @property
    def refused(self) -> bool:
        """Whether the advice warns against any limit."""
        return self.task.limits is None

    @property
    def row(self) -> list[str]:
        """The row of the table."""
        before, after, guided = (spread(times, 1000) for times in self.times)
        predicted, measured, verdict = self.extra.cells
        advice = self.task.verdict.replace("_", " ")
        ours = [str(self.limits), after, before, measured, predicted, verdict]
        return [self.name, advice, *ours, f"{self.tier:,}", guided, self.left]


def measure(shape: str, size: int) -> Timed:
    """Observe a task with arguments of *shape*, get the advice, and time its messages. *size* is in KB."""
    call: Call = SHAPES[shape](size * KB), {}
    summary = observe(fresh_app(), {shape: [call]})
    speed = measure_repr_speed()
    (free,) = advised(summary, "redis", speed)
    (task,) = advise(summary, "redis", metadata.version("celery"), repr_speed=speed, min_runs=1).tasks
    tier = recommend(summary).tier
    if free.limits is None or free.cost is None or free.cost.publish_seconds is None or tier is None:
        message = f"no limits for {shape}: {free.reasons}"
        raise RuntimeError(message)
    guided = fresh_app()
    set_app_limits(guided, ReprLimits(tier, tier))  # the guide sets limits for all tasks, and no levels
    ours = limited(fresh_app(), shape, free.limits)
    left = _left(ours, shape, call)
    if left != "whole":
        message = f"{free.limits} leaves {shape} {left}"
        raise RuntimeError(message)
    (times,) = by_turns((fresh_app(), ours, guided), shape, [call])
    return Timed(
        name=f"{shape}, {size} KB",
        task=task,
        limits=free.limits,
        tier=tier,
        left=_left(guided, shape, call),
        times=tuple(times),
        predicted=free.cost.publish_seconds,
    )


def _left(app: Celery, task: str, call: Call) -> str:
    """What *app* does to the repr of the args: ``whole``, or ``cut by`` a cause."""
    cause = CAUSES.get(receive(task, publish(app, task, call)).args.verdict)
    return f"cut by {cause}" if cause else "whole"


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - harness.run calls it with one argument
    """Predict and measure all shapes and sizes."""
    sizes = SIZES[:1] if smoke else SIZES
    by_shape = {shape: [measure(shape, size) for size in sizes] for shape in SHAPES}
    results = [result for of_shape in by_shape.values() for result in of_shape]
    return Answer(
        title="What do higher limits cost the producer, and does the advice predict it?",
        head=HEAD,
        rows=[result.row for result in results],
        claims=[
            Claim(f"{shape}, error of the predicted time", max(result.factor for result in of_shape), TIME_FACTOR)
            for shape, of_shape in by_shape.items()
        ],
        chart=chart(sizes[-1], {shape: of_shape[-1] for shape, of_shape in by_shape.items()}),
        notes=[
            f"A prediction that is off by less than {TOO_SMALL * 1000:.2f} ms counts as right.",
            *(
                f"{result.name}: the advice warns against any limit: {result.task.reasons[0]}."
                for result in results
                if result.refused
            ),
        ],
    )


def chart(size: int, by_shape: dict[str, Timed]) -> Chart:
    """A bar chart of the results of each shape."""
    bars: dict[str, list[tuple[str, float]]] = {}
    for shape, result in by_shape.items():
        default, ours, guided = result.medians
        seconds = {
            APPS[0]: default,
            APPS[1]: ours,
            "the same, as predicted": default + result.predicted,
            APPS[2]: guided,
        }
        for name, value in seconds.items():
            bars.setdefault(name, []).append((shape, value * 1000))
    return Chart(f"Making a message with arguments of {size} KB", "CPU time (ms)", "", bars, bars=True, log="x")


if __name__ == "__main__":
    sys.exit(run(answer))
