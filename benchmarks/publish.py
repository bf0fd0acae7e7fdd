"""What higher limits cost the producer: those that the advice finds against Celery's default, and the guide's tier.

Six shapes of arguments, of 10 KB and 100 KB. ``advise`` for Redis finds the limits that keep the repr whole, and
predicts what they add to a publish; limits that it advises against are taken all the same. Timed is Celery's making of
one message (``create_task_message``), in CPU time of the thread, with each of the three by turns.
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
from celery_argsize.advice.publish_cost import PublishTimer  # noqa: E402
from celery_argsize.measuring.cuts import CAUSES  # noqa: E402

if TYPE_CHECKING:
    from celery import Celery

#: KB of JSON.
SIZES: Final = (10, 100)
#: What is timed.
APPS: Final = ("limit 1,024", "limits that keep it whole", "the guide's tier")
HEAD: Final = [
    "args",
    "advice",
    *(APPS[1], "ms", "at 1,024", "more", "predicted", "factor"),
    *(APPS[2], "ms", "repr"),
]


class Found(NamedTuple):
    """What was found about arguments of one shape and size."""

    name: str
    task: TaskAdvice
    """The advice."""
    limits: ReprLimits
    """What keeps the repr whole, advised or not."""
    tier: int
    left: str
    """What the guide's tier leaves of the repr."""
    times: tuple[tuple[float, ...], ...]
    """Seconds that each app takes."""
    predicted: float

    @property
    def medians(self) -> list[float]:
        """Of the times."""
        return [*map(statistics.median, self.times)]

    @property
    def extra(self) -> Seconds:
        """Time that the limits add to a publish."""
        before, after, _ = self.medians
        return Seconds(self.predicted, after - before)

    @property
    def factor(self) -> float:
        """By how many times predicted and measured differ."""
        return math.exp(self.extra.off)

    @property
    def refused(self) -> bool:
        """Whether the advice is against any limit."""
        return self.task.limits is None

    @property
    def row(self) -> list[str]:
        """For the table."""
        before, after, guided = (spread(times, 1000) for times in self.times)
        predicted, measured, verdict = self.extra.cells
        said = self.task.verdict.replace("_", " ")
        ours = [str(self.limits), after, before, measured, predicted, verdict]
        return [self.name, said, *ours, f"{self.tier:,}", guided, self.left]


def find(shape: str, size: int) -> Found:
    """Observe a task, ask for advice, time its messages."""
    call: Call = SHAPES[shape](size * KB), {}
    summary = observe(fresh_app(), {shape: [call]})
    timer = PublishTimer()
    (free,) = advised(summary, "redis", timer)
    (task,) = advise(summary, "redis", metadata.version("celery"), publish_time=timer, min_runs=1).tasks
    tier = recommend(summary).tier
    if free.limits is None or free.cost is None or free.cost.publish_seconds is None or tier is None:
        message = f"no limits for {shape}: {free.reasons}"
        raise RuntimeError(message)
    guided = fresh_app()
    set_app_limits(guided, ReprLimits(tier, tier))  # as the guide has it: for all tasks, and no levels
    ours = limited(fresh_app(), shape, free.limits)
    left = _left(ours, shape, call)
    if left != "whole":
        message = f"{free.limits} leaves {shape} {left}"
        raise RuntimeError(message)
    (times,) = by_turns((fresh_app(), ours, guided), shape, [call])
    return Found(
        name=f"{shape}, {size} KB",
        task=task,
        limits=free.limits,
        tier=tier,
        left=_left(guided, shape, call),
        times=tuple(times),
        predicted=free.cost.publish_seconds,
    )


def _left(app: Celery, task: str, call: Call) -> str:
    cause = CAUSES.get(receive(task, publish(app, task, call)).args.verdict)
    return f"cut by {cause}" if cause else "whole"


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - as harness.run calls it
    """Predict, time, compare."""
    sizes = SIZES[:1] if smoke else SIZES
    by_shape = {shape: [find(shape, size) for size in sizes] for shape in SHAPES}
    found = [one for several in by_shape.values() for one in several]
    return Answer(
        title="What do higher limits cost the producer, and does the advice predict it?",
        head=HEAD,
        rows=[one.row for one in found],
        claims=[
            Claim(f"{shape}, predicted and measured time", max(one.factor for one in several), TIME_FACTOR)
            for shape, several in by_shape.items()
        ],
        chart=chart(sizes[-1], {shape: several[-1] for shape, several in by_shape.items()}),
        notes=[
            f"Differences under {TOO_SMALL * 1000:.2f} ms count as held.",
            *(f"{one.name}: the advice is against any limit: {one.task.reasons[0]}." for one in found if one.refused),
        ],
    )


def chart(size: int, found: dict[str, Found]) -> Chart:
    """Bars for *found*, by shape."""
    bars: dict[str, list[tuple[str, float]]] = {}
    for shape, one in found.items():
        default, ours, guided = one.medians
        seconds = {
            APPS[0]: default,
            APPS[1]: ours,
            "the same, as predicted": default + one.predicted,
            APPS[2]: guided,
        }
        for name, value in seconds.items():
            bars.setdefault(name, []).append((shape, value * 1000))
    return Chart(f"Making a message with arguments of {size} KB", "CPU time (ms)", "", bars, bars=True, log="x")


if __name__ == "__main__":
    sys.exit(run(answer))
