"""Tests the predictions of the advice: bytes and publish time, for fifty shapes of arguments.

``make bench-advice`` runs it in about two minutes. It writes ADVICE.md beside this file and the table of results in
docs/advice.md. For each shape:

1. Publish tasks with Celery's default limits, and measure their arguments as a worker would.
2. Ask ``advise`` which limits keep the reprs whole, and what they cost.
3. Publish the same tasks with these limits. Compare message size and publish time with the prediction.
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

import redis  # noqa: E402 - the folders of our own modules are on sys.path only from here on
import redis_server  # noqa: E402
from amqp.serialization import dumps  # noqa: E402
from celery import Celery  # noqa: E402
from harness import machine, versions  # noqa: E402
from shapes import SHAPES, Shape  # noqa: E402
from support.simulate import fresh_app, observe, publish  # noqa: E402

from celery_argsize import ReprLimits, Summary, advise, set_repr_limits  # noqa: E402
from celery_argsize.advice.publish_cost import measure_repr_speed  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shapes import Call

    from celery_argsize import TaskAdvice
    from celery_argsize.advice.plans import ReprSpeed

REPORT: Final = HERE / "ADVICE.md"
#: The file that holds the results, between the two ``MARKS``.
DOC: Final = HERE.parent / "docs" / "advice.md"
MARKS: Final = ("<!-- made by make bench-advice -->\n", "<!-- until here -->\n")

#: The goals: predicted bytes are right within this share, predicted times within this factor.
BYTES_WITHIN: Final = 0.05
TIME_FACTOR: Final = 2.0
#: Seconds. A prediction that is off by less meets its goal: such times cannot be measured reliably.
TOO_SMALL: Final = 50e-6

#: About how many seconds to time one shape, and how often each of its messages is made, at least and at most.
TIMING: Final = 1.2
ROUNDS: Final = (5, 15)


# -- one figure ---------------------------------------------------------------------------------------------------


class Bytes(NamedTuple):
    """Mean bytes by which the limits make a truncated message longer: predicted and measured."""

    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """The relative error of the prediction; 0.05 is 5 % too much."""
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
        return f"{self.verdict} ({self.predicted:,.0f} bytes predicted, {self.measured:,.0f} measured)"

    @property
    def cells(self) -> list[str]:
        """Predicted, measured, how they compare."""
        return [f"{self.predicted:,.0f}", f"{self.measured:,.0f}", self.verdict + ("" if self.holds else " ✗")]


class Seconds(NamedTuple):
    """Seconds by which the limits make a publish slower: predicted and measured."""

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
        return f"{self.verdict} ({self.predicted * 1000:,.3f} ms predicted, {self.measured * 1000:,.3f} measured)"

    @property
    def cells(self) -> list[str]:
        """Predicted, measured, how they compare."""
        mark = "" if self.holds else " ✗"
        return [f"{self.predicted * 1000:,.3f}", f"{self.measured * 1000:,.3f}", self.verdict + mark]


# -- one shape ----------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """The results for one shape."""

    shape: Shape
    summary: Summary
    redis: Bytes
    amqp: Bytes | None
    """``None`` if no limit that keeps the reprs whole fits into RabbitMQ's header frame."""
    mean: Seconds
    largest: Seconds

    @property
    def holds(self) -> bool:
        """Whether bytes and mean publish time meet their goals. The largest message does not count."""
        return self.redis.holds and self.mean.holds and (self.amqp is None or self.amqp.holds)

    @property
    def cells(self) -> list[str]:
        """The row for the table."""
        (task,) = self.summary.tasks
        need = max(task.args.need.max, task.kwargs.need.max)
        amqp = self.amqp.cells if self.amqp else ["none fits", "", ""]
        return [self.shape.name, str(self.shape.runs), f"{need:,}", *self.redis.cells, *amqp, *self.mean.cells]


def advised(summary: Summary, broker: str, speed: ReprSpeed | None = None) -> tuple[TaskAdvice, ...]:
    """The advice for each task in *summary*, without bounds on its cost or on the number of runs."""
    version = metadata.version("celery")
    return advise(summary, broker, version, repr_speed=speed, min_runs=1, max_publish_seconds=math.inf).tasks


def limited(app: Celery, task: str, limits: ReprLimits) -> Celery:
    """Set *limits* for *task* on *app*, and return *app*."""
    set_repr_limits(app, {task: limits})
    return app


def redis_sizes(url: str, task: str, calls: list[Call], limits: ReprLimits) -> list[int]:
    """Send each call through Celery to the Redis at *url*: the bytes of each message, as Redis stores it."""
    app = limited(Celery("benchmark", broker=url, set_as_current=False), task, limits)
    for args, kwargs in calls:
        app.send_task(task, args, kwargs, ignore_result=True)
    app.close()
    with redis.Redis.from_url(url) as client:
        messages: Any = client.lrange("celery", 0, -1)
        client.flushall()
    return [len(message) for message in reversed(messages)]


def amqp_sizes(task: str, calls: list[Call], limits: ReprLimits) -> list[int]:
    """Bytes of the headers of each message, as py-amqp writes them into the header frame."""
    app = limited(fresh_app(), task, limits)
    return [len(dumps("F", (publish(app, task, call).headers,))) for call in calls]


def longer(weigh: Callable[[ReprLimits], list[int]], limits: ReprLimits) -> list[int]:
    """By how many bytes *limits* make each message longer; *weigh* gives the bytes of each message under limits."""
    return [after - before for before, after in zip(weigh(ReprLimits()), weigh(limits), strict=True)]


def slower(task: str, calls: list[Call], limits: ReprLimits) -> list[float]:
    """By how many seconds *limits* make it slower to build each message: the difference of two medians."""
    times = by_turns((fresh_app(), limited(fresh_app(), task, limits)), task, calls)
    return [statistics.median(after) - statistics.median(before) for before, after in times]


def by_turns(apps: Sequence[Celery], task: str, calls: Sequence[Call]) -> list[list[tuple[float, ...]]]:
    """Time how long each of *apps* takes to build each message, several times, the apps in turns.

    Returns one list for each call, which has one tuple of seconds for each app.
    """
    spent = sum(timed(app, task, call) for call in calls for app in apps)
    rounds = min(ROUNDS[1], max(ROUNDS[0], round(TIMING / spent)))
    taken = [[[timed(app, task, call) for app in apps] for _ in range(rounds)] for call in calls]
    return [[*zip(*times, strict=True)] for times in taken]


def timed(app: Celery, task: str, call: Call) -> float:
    """CPU seconds of this thread that *app* takes to build one message. Other programs do not count."""
    began = time.thread_time()
    publish(app, task, call)
    return time.thread_time() - began


def run(shape: Shape, url: str) -> Row:
    """Predict and measure one shape."""
    name, calls = shape.name, shape.calls()
    summary = observe(fresh_app(), {name: calls})
    truncated = summary.truncated_tasks
    (task,) = advised(summary, "redis", measure_repr_speed())
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
    """Bytes that the headers get longer on AMQP; ``None`` if no limit fits into the frame."""
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
    """Run all shapes, and print and write the table."""
    print(aligned(HEAD))
    rows = []
    with tempfile.TemporaryDirectory() as folder, redis_server.run(Path(folder)) as url:
        for shape in SHAPES:
            rows.append(run(shape, url))
            print(aligned(rows[-1].cells), flush=True)
        with redis.Redis.from_url(url) as client:
            info: Any = client.info("server")
    table = results(rows)
    print("", *table, sep="\n")
    libraries = versions(["celery", "kombu", "amqp", "redis"])
    where = f"On {machine()}.\nVersions: {libraries}, Redis server {info['redis_version']}."
    REPORT.write_text(document(rows, table, where), encoding="utf-8")
    text = DOC.read_text(encoding="utf-8")
    before, after = text.partition(MARKS[0])[0], text.partition(MARKS[1])[2]
    end = f"\n{met(rows, 'kinds of arguments')} {where}\n\n"
    DOC.write_text(
        "".join([before, MARKS[0], *(f"{line}\n" for line in table), end, MARKS[1], after]), encoding="utf-8"
    )


def met(rows: list[Row], unit: str) -> str:
    """A sentence: for how many shapes the goals were met."""
    return f"Bytes and mean publish time met their goals for {sum(row.holds for row in rows)} of {len(rows)} {unit}."


def aligned(cells: list[str]) -> str:
    """A row of the table with aligned columns, for a terminal."""
    first, *others = zip(cells, WIDTHS, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])


def results(rows: list[Row]) -> list[str]:
    """The short table, in Markdown: how many predictions met their goal, and the worst one."""
    share, factor = f"within {BYTES_WITHIN:.0%}", f"within a factor of {TIME_FACTOR:g}"
    return [
        "| predicted figure | goal | goal met | worst case |",
        "|---|---|---|---|",
        _result("bytes of a message on Redis", share, [row.redis for row in rows]),
        _result("bytes of the headers on RabbitMQ (where they fit)", share, [row.amqp for row in rows if row.amqp]),
        _result("mean publish time", factor, [row.mean for row in rows]),
        _result("publish time of the largest message", factor, [row.largest for row in rows]),
    ]


def _result(what: str, goal: str, figures: Sequence[Bytes | Seconds]) -> str:
    held = sum(figure.holds for figure in figures)
    return f"| {what} | {goal} | {held} of {len(figures)} | {max(figures, key=lambda figure: figure.off)} |"


def document(rows: list[Row], table: list[str], where: str) -> str:
    """The text of ADVICE.md; *table* is the short one."""
    full = [HEAD, [":--", *["--:"] * (len(HEAD) - 1)], *(row.cells for row in rows)]
    return f"""\
# The advice: predicted and measured

Written by `make bench-advice`. [advice.py](advice.py) is the program, and [shapes.py](shapes.py) makes the arguments.
{where}

{chr(10).join(table)}

{met(rows, "shapes")}

- `need`: length of the longest whole repr, in characters.
- `Redis`, `AMQP`: the prediction, by how many bytes the advised limits make a truncated message longer, on average.
  `measured` on Redis: the messages as the server stores them. `measured` on AMQP: the headers as py-amqp writes them
  into the header frame. `none fits`: no limit that keeps the reprs whole fits into the frame.
- `ms`: the prediction, by how much the limits for Redis make a publish slower, on average. `measured`: the time of
  Celery's `create_task_message` with these limits, minus its time with Celery's defaults. Both are medians of the
  thread's CPU time.
- `factor`: predicted time divided by measured time. A difference under {TOO_SMALL * 1000:.2f} ms meets the goal.
- ✗: the goal was missed.

{chr(10).join(f"| {' | '.join(cells)} |" for cells in full)}
"""


if __name__ == "__main__":
    main()
