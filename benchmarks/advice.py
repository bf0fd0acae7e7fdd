"""What the advice predicts, against what happens: bytes and publish time, for fifty shapes of arguments.

``make bench-advice`` runs it, in about two minutes. It writes ADVICE.md beside this file, and the table of results in
docs/advice.md. For each shape, tasks are published with Celery's default limits and measured as a worker would;
``advise`` says which limits keep their reprs whole, and what those cost; the same tasks are published with those
limits, and weighed and timed.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "tests"), str(HERE.parent / "scripts")]

import redis  # noqa: E402 - from here on, what is ours is found too
import redis_server  # noqa: E402
from amqp.serialization import dumps  # noqa: E402
from celery import Celery  # noqa: E402
from harness import machine, versions  # noqa: E402
from shapes import SHAPES, Shape  # noqa: E402
from support.simulate import fresh_app, observe, publish  # noqa: E402

from celery_argsize import ReprLimits, Summary, advise, set_repr_limits  # noqa: E402
from celery_argsize.advice.publish_cost import PublishTimer  # noqa: E402
from celery_argsize.api.advice import TIMING_BUDGET  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shapes import Call

    from celery_argsize import TaskAdvice

REPORT: Final = HERE / "ADVICE.md"
#: Has the results between two marks.
DOC: Final = HERE.parent / "docs" / "advice.md"
MARKS: Final = ("<!-- made by make bench-advice -->\n", "<!-- until here -->\n")

#: What is aimed at: bytes within this share, times within this factor.
BYTES_WITHIN: Final = 0.05
TIME_FACTOR: Final = 2.0
#: Seconds. Times that differ by less count as held; below it, nothing can be told.
TOO_SMALL: Final = 50e-6

#: Seconds to time one shape for, about; and how often each of its messages is made, at least and at most.
TIMING: Final = 1.2
ROUNDS: Final = (5, 15)


# -- one figure ---------------------------------------------------------------------------------------------------


class Bytes(NamedTuple):
    """Bytes that a truncated message gets longer, the mean."""

    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """As a share of what was measured."""
        return self.predicted / self.measured - 1

    @property
    def off(self) -> float:
        """How far off, to find the worst."""
        return abs(self.error)

    @property
    def holds(self) -> bool:
        """Whether it is as good as is aimed at."""
        return self.off <= BYTES_WITHIN

    @property
    def verdict(self) -> str:
        """The last cell of the three."""
        return f"{self.error:+.1%}"

    def __str__(self) -> str:
        return f"{self.verdict} ({self.predicted:,.0f} for {self.measured:,.0f} bytes)"

    @property
    def cells(self) -> list[str]:
        """Predicted, measured, how they compare."""
        return [f"{self.predicted:,.0f}", f"{self.measured:,.0f}", self.verdict + ("" if self.holds else " ✗")]


class Seconds(NamedTuple):
    """Time that a publish takes longer."""

    predicted: float
    measured: float

    @property
    def off(self) -> float:
        """How far off, to find the worst."""
        if abs(self.predicted - self.measured) < TOO_SMALL:
            return 0.0
        return abs(math.log(self.predicted / self.measured)) if min(self) > 0 else math.inf

    @property
    def holds(self) -> bool:
        """Whether it is as good as is aimed at."""
        return self.off <= math.log(TIME_FACTOR)

    @property
    def verdict(self) -> str:
        """The last cell of the three."""
        if max(self) < TOO_SMALL:
            return "too small to tell"
        return f"{self.predicted / self.measured:.2f}" if self.measured > self.predicted / 100 else "over 100"

    def __str__(self) -> str:
        return f"{self.verdict} ({self.predicted * 1000:,.3f} for {self.measured * 1000:,.3f} ms)"

    @property
    def cells(self) -> list[str]:
        """Predicted, measured, how they compare."""
        mark = "" if self.holds else " ✗"
        return [f"{self.predicted * 1000:,.3f}", f"{self.measured * 1000:,.3f}", self.verdict + mark]


# -- one shape ----------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One shape: predicted and measured."""

    shape: Shape
    summary: Summary
    redis: Bytes
    amqp: Bytes | None
    """``None`` where no limit fits the frame."""
    mean: Seconds
    largest: Seconds

    @property
    def holds(self) -> bool:
        """Whether all of it does, that of the largest message aside."""
        return self.redis.holds and self.mean.holds and (self.amqp is None or self.amqp.holds)

    @property
    def cells(self) -> list[str]:
        """For the table."""
        (task,) = self.summary.tasks
        need = max(task.args.need.max, task.kwargs.need.max)
        amqp = self.amqp.cells if self.amqp else ["none fits", "", ""]
        return [self.shape.name, str(self.shape.runs), f"{need:,}", *self.redis.cells, *amqp, *self.mean.cells]


def advised(summary: Summary, broker: str, timer: PublishTimer | None = None) -> tuple[TaskAdvice, ...]:
    """The advice for each task, whatever it costs, and however few runs there were."""
    version = metadata.version("celery")
    return advise(summary, broker, version, publish_time=timer, min_runs=1, max_publish_seconds=math.inf).tasks


def limited(app: Celery, task: str, limits: ReprLimits) -> Celery:
    """*app* with *limits* for *task*."""
    set_repr_limits(app, {task: limits})
    return app


def redis_sizes(url: str, task: str, calls: list[Call], limits: ReprLimits) -> list[int]:
    """Bytes of each message, as they lie in Redis once Celery has sent them."""
    app = limited(Celery("benchmark", broker=url, set_as_current=False), task, limits)
    for args, kwargs in calls:
        app.send_task(task, args, kwargs, ignore_result=True)
    app.close()
    with redis.Redis.from_url(url) as client:
        found: Any = client.lrange("celery", 0, -1)
        client.flushall()
    return [len(message) for message in reversed(found)]


def amqp_sizes(task: str, calls: list[Call], limits: ReprLimits) -> list[int]:
    """Bytes of the headers of each message, as py-amqp writes them into the header frame."""
    app = limited(fresh_app(), task, limits)
    return [len(dumps("F", (publish(app, task, call).headers,))) for call in calls]


def longer(weigh: Callable[[ReprLimits], list[int]], limits: ReprLimits) -> list[int]:
    """By how many bytes *limits* make each message longer."""
    return [after - before for before, after in zip(weigh(ReprLimits()), weigh(limits), strict=True)]


def slower(task: str, calls: list[Call], limits: ReprLimits) -> list[float]:
    """By how many seconds *limits* make the making of each message longer: medians, taken by turns."""
    found = by_turns((fresh_app(), limited(fresh_app(), task, limits)), task, calls)
    return [statistics.median(after) - statistics.median(before) for before, after in found]


def by_turns(apps: Sequence[Celery], task: str, calls: Sequence[Call]) -> list[list[tuple[float, ...]]]:
    """For each message, and each of *apps*, the times that it takes to make it."""
    spent = sum(timed(app, task, call) for call in calls for app in apps)
    rounds = min(ROUNDS[1], max(ROUNDS[0], round(TIMING / spent)))
    taken = [[[timed(app, task, call) for app in apps] for _ in range(rounds)] for call in calls]
    return [[*zip(*times, strict=True)] for times in taken]


def timed(app: Celery, task: str, call: Call) -> float:
    """Seconds that *app* takes to make one message; those of this thread, so that other programs do not count."""
    began = time.thread_time()
    publish(app, task, call)
    return time.thread_time() - began


def run(shape: Shape, url: str) -> Row:
    """Predict and measure."""
    name, calls = shape.name, shape.calls()
    summary = observe(fresh_app(), {name: calls})
    truncated = summary.truncated_tasks
    (task,) = advised(summary, "redis", PublishTimer())
    cost, limits = task.cost, task.limits
    if limits is None or cost is None or cost.publish_seconds is None or cost.publish_seconds_max is None:
        message = f"no limits for {name}: {task.reasons}"
        raise RuntimeError(message)
    on_redis = longer(lambda given: redis_sizes(url, name, calls, given), limits)
    seconds = slower(name, calls, limits)
    largest = max(range(len(calls)), key=on_redis.__getitem__)
    return Row(
        shape=shape,
        summary=summary,
        redis=Bytes(cost.extra_bytes, sum(on_redis) / truncated),
        amqp=on_amqp(summary, calls),
        mean=Seconds(cost.publish_seconds, sum(seconds) / truncated),
        largest=Seconds(cost.publish_seconds_max, seconds[largest]),
    )


def on_amqp(summary: Summary, calls: list[Call]) -> Bytes | None:
    """The same for the headers on AMQP."""
    (task,) = advised(summary, "amqp")
    if task.limits is None or task.cost is None:
        return None
    extra = longer(lambda given: amqp_sizes(task.name, calls, given), task.limits)
    return Bytes(task.cost.extra_bytes, sum(extra) / summary.truncated_tasks)


# -- all of them --------------------------------------------------------------------------------------------------


COMPARED: Final = ("Redis", "measured", "error", "AMQP", "measured", "error", "ms", "measured", "factor")
HEAD: Final = ["shape", "runs", "need", *COMPARED]
WIDTHS: Final = (42, 4, 7, 7, 8, 8, 9, 8, 8, 8, 8, 17)


def main() -> None:
    """Run all shapes, print the table, write it."""
    print(aligned(HEAD))
    rows = []
    with tempfile.TemporaryDirectory() as folder, redis_server.run(Path(folder)) as url:
        for shape in SHAPES:
            rows.append(run(shape, url))
            print(aligned(rows[-1].cells), flush=True)
        with redis.Redis.from_url(url) as client:
            info: Any = client.info("server")
    found = results(rows)
    print("", *found, sep="\n")
    libraries = versions(["celery", "kombu", "amqp", "redis"])
    where = f"On {machine()}.\nVersions: {libraries}, Redis server {info['redis_version']}."
    REPORT.write_text(document(rows, found, where), encoding="utf-8")
    text = DOC.read_text(encoding="utf-8")
    before, after = text.partition(MARKS[0])[0], text.partition(MARKS[1])[2]
    held = f"\nAll of it held for {sum(row.holds for row in rows)} of {len(rows)} shapes. {where}\n\n"
    DOC.write_text(
        "".join([before, MARKS[0], *(f"{line}\n" for line in found), held, MARKS[1], after]), encoding="utf-8"
    )


def aligned(cells: list[str]) -> str:
    """A row of the table, for a terminal."""
    first, *others = zip(cells, WIDTHS, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])


def results(rows: list[Row]) -> list[str]:
    """A table of how many hold, and of the worst."""
    # as the commands do it: the tasks of all shapes, within TIMING_BUDGET
    tasks = tuple(task for row in rows for task in row.summary.tasks)
    costs = {task.name: task.cost for task in advised(Summary(tasks), "redis", PublishTimer(budget=TIMING_BUDGET))}
    quick = [Seconds(cost.publish_seconds or 0.0, row.mean.measured) for row in rows if (cost := costs[row.shape.name])]
    share, factor = f"within {BYTES_WITHIN:.0%}", f"within a factor of {TIME_FACTOR:g}"
    return [
        "| predicted | aimed at | held | worst |",
        "|---|---|---|---|",
        _result("bytes of a message on Redis", share, [row.redis for row in rows]),
        _result("bytes of its headers on RabbitMQ (of those that fit)", share, [row.amqp for row in rows if row.amqp]),
        _result("publish time, the mean", factor, [row.mean for row in rows]),
        _result(f"the same, all tasks timed in {TIMING_BUDGET:g} s, as the commands do", factor, quick),
        _result("publish time of the largest message", factor, [row.largest for row in rows]),
    ]


def _result(what: str, target: str, figures: Sequence[Bytes | Seconds]) -> str:
    held = sum(figure.holds for figure in figures)
    return f"| {what} | {target} | {held} of {len(figures)} | {max(figures, key=lambda figure: figure.off)} |"


def document(rows: list[Row], found: list[str], where: str) -> str:
    """ADVICE.md."""
    table = [HEAD, [":--", *["--:"] * (len(HEAD) - 1)], *(row.cells for row in rows)]
    return f"""\
# The advice: predicted against measured

Made by `make bench-advice`. [advice.py](advice.py) says what it does, and [shapes.py](shapes.py) what it sends.
{where}

{chr(10).join(found)}

All of it held for {sum(row.holds for row in rows)} of {len(rows)} shapes, the largest message aside.

- `need`: characters that the largest whole repr takes.
- `Redis`, `AMQP`: bytes that a truncated message gets longer with the limits advised, the mean, as predicted. Measured
  are messages as they lie in a Redis server, and headers as py-amqp writes them into the header frame. `none fits`: no
  limit that keeps the reprs whole fits the frame.
- `ms`: time that a publish takes longer, the mean, as predicted. Measured is Celery's `create_task_message` with the
  limits for Redis, less the same with Celery's defaults: medians of the thread's own time. `factor` is predicted by
  measured. Differences under {TOO_SMALL * 1000:.2f} ms count as held.
- ✗: not held.

{chr(10).join(f"| {' | '.join(cells)} |" for cells in table)}
"""


if __name__ == "__main__":
    main()
