"""How much time does monitoring add to one task? celery_argsize and what one might use instead.

A task with an empty body runs in Celery's own tracer (``build_tracer``), in a forked child as in a worker. The same
process published its message, so the message has the headers that an instrumented producer adds. Each monitor runs in
processes of its own, one after another, in several rounds.

Tasks run in bursts. Between bursts there is a pause that is not timed: the main process of a worker needs it to read
what its children hand over. The result of a round is the median of its bursts, minus the median without a receiver in
that round. Caches are warm within a burst, for all monitors. ``worker`` shows the cost in a whole worker.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "scripts"))

import redis_server  # noqa: E402 - the folders of our own modules are on sys.path only from here on
from celery import Celery, signals  # noqa: E402
from celery.app import trace  # noqa: E402
from harness import Answer, Chart, Claim, run, spread  # noqa: E402
from weigh import in_child  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Rounds, bursts in a round, tasks in a burst, seconds between bursts: of a full run and of a smoke test.
FULL: Final = (4, 8, 500, 0.03)
SMOKE: Final = (1, 2, 20, 0.0)

RECORD: Final = {"id": 1007, "title": "Adagio", "artist": "Ensemble", "year": 1987}
#: Case name → args and kwargs. "whole" and "cut" say whether Celery cuts the repr: a cut repr takes more work.
CASES: Final[Mapping[str, tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "100 B": ((12345, "track-42", "It has 100 bytes of JSON, as most tasks do; this text fills them up.  "), {}),
    "1 KB, whole": (
        (12345, "track-42", "Twelve words of nine bytes or so make one line of this text, and more. " * 14),
        {},
    ),
    "1 KB, cut": (([{**RECORD, "id": 1000 + number} for number in range(17)],), {}),
    "10 kwargs": (
        (),
        {
            **RECORD,
            "album": "Strings",
            "track": 7,
            "length": 402.5,
            "explicit": False,
            "label": None,
            "genre": "baroque",
        },
    ),
    "a datetime": ((12345, "track-42", datetime(2026, 5, 17, 9, 30, tzinfo=timezone.utc)), {}),
}
#: The cases that are timed here. ``instructions`` uses all of them.
TIMED: Final = ("100 B", "1 KB, whole", "1 KB, cut")

app: Final = Celery("task_time", broker="memory://", set_as_current=False)


@app.task(name="app.tasks.light", ignore_result=True)
def light(*_: Any, **__: Any) -> None:
    """Do nothing."""


# -- monitors -----------------------------------------------------------------------------------------------------


def _compact(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))


def nothing(_: str) -> None:
    """No receiver."""


def empty(_: str) -> None:
    """A receiver that does nothing."""
    signals.task_prerun.connect(lambda **_: None, weak=False)


def floor(_: str) -> None:
    """The least possible work: look up the request, encode args, write to a pipe."""
    import marshal  # noqa: PLC0415 - each monitor imports what only it needs
    import threading  # noqa: PLC0415

    import orjson  # noqa: PLC0415

    out, into = os.pipe()

    def prerun(task: Any = None, task_id: Any = None, args: Any = None, **_: Any) -> None:
        header = task.request.argsrepr
        os.write(into, marshal.dumps((task.name, task_id, len(orjson.dumps(args)), len(header)), 2))

    def drain() -> None:
        while os.read(out, 1 << 16):
            time.sleep(0.01)

    threading.Thread(target=drain, daemon=True).start()
    signals.task_prerun.connect(prerun, weak=False)


def argsize(url: str) -> None:
    """celery_argsize as it runs in a worker, with Redis and the log of large tasks."""
    import celery_argsize  # noqa: PLC0415

    monitor: Any = celery_argsize.install(app, redis_url=url)
    monitor.start(monitor.settings, "bench@host", children=1)


def pipeline_per_task(url: str) -> None:
    """The simple design: json.dumps, and a Redis pipeline for each task."""
    import redis  # noqa: PLC0415

    client = redis.Redis.from_url(url)

    def prerun(task: Any = None, args: Any = None, kwargs: Any = None, **_: Any) -> None:
        key, pipeline = f"sizes:{task.name}", client.pipeline()
        pipeline.hincrby(key, "count", 1)
        pipeline.hincrby(key, "args", _compact(args))
        pipeline.hincrby(key, "kwargs", _compact(kwargs))
        pipeline.execute()

    signals.task_prerun.connect(prerun, weak=False)


def prometheus(_: str) -> None:
    """json.dumps, and a histogram of prometheus_client."""
    from prometheus_client import Histogram  # noqa: PLC0415

    histogram = Histogram("args_size", "Size of args and kwargs", ["task"])

    def prerun(task: Any = None, args: Any = None, kwargs: Any = None, **_: Any) -> None:
        histogram.labels(task.name).observe(_compact(args) + _compact(kwargs))

    signals.task_prerun.connect(prerun, weak=False)


def opentelemetry(_: str) -> None:
    """OpenTelemetry's instrumentation, which drops its spans."""
    import nowhere  # noqa: PLC0415

    nowhere.instrument()


def datadog(_: str) -> None:
    """dd-trace's integration, without an agent that accepts its spans."""
    os.environ |= {"DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false", "DD_REMOTE_CONFIGURATION_ENABLED": "false"}
    import logging  # noqa: PLC0415

    import ddtrace  # noqa: PLC0415

    logging.getLogger("ddtrace").setLevel(logging.CRITICAL)  # it would log that there is no agent
    ddtrace.patch(celery=True)


def sentry(_: str) -> None:
    """Sentry's integration, which drops its traces."""
    import sentry_sdk  # noqa: PLC0415
    from sentry_sdk.integrations.celery import CeleryIntegration  # noqa: PLC0415

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        integrations=[CeleryIntegration()],
        default_integrations=False,
        traces_sample_rate=1.0,
        transport=lambda _: None,
    )


#: Name in the table → function that sets the monitor up in this process; it is given the URL of a Redis.
MONITORS: Final[Mapping[str, Callable[[str], None]]] = {
    "no receiver": nothing,
    "an empty receiver": empty,
    "floor: request, orjson, one write": floor,
    "celery_argsize": argsize,
    "prometheus_client histogram": prometheus,
    "OpenTelemetry": opentelemetry,
    "dd-trace": datadog,
    "Sentry": sentry,
    "a Redis pipeline for each task": pipeline_per_task,
}
NONE, EMPTY, _, OURS = [*MONITORS][:4]


# -- in the process of one monitor --------------------------------------------------------------------------------


class Received(NamedTuple):
    """A task as it arrives in a child of a worker."""

    tracer: Callable[..., Any]
    """Celery's tracer of the task. It takes the four fields that follow."""
    id: str
    args: list[Any]
    kwargs: dict[str, Any]
    request: dict[str, Any]
    """Copy it for each run, as Celery makes one for each message."""


def receive(case: str) -> Received:
    """Publish the task with the arguments of *case*, and decode its message as a worker does.

    Raises:
        RuntimeError: the arguments do not arrive as they were sent.
    """
    sent_args, sent_kwargs = CASES[case]
    # A random id would make other collisions in dicts each time.
    light.apply_async(sent_args, sent_kwargs, task_id="8a1f6c0e-53d2-4b7a-9e64-2f0d7b1c9a35")
    with app.connection_for_write() as connection:
        message = connection.SimpleQueue("celery").get(block=False)
        message.ack()
    args, kwargs, _ = message.payload
    if (args, kwargs) != ([*sent_args], sent_kwargs):
        error = f"{case}: the task gets {args}, {kwargs}"
        raise RuntimeError(error)
    request = {
        **message.headers,
        "args": args,
        "kwargs": kwargs,
        "is_eager": False,
        "hostname": "bench@host",
        "delivery_info": message.delivery_info,
        "correlation_id": message.properties["correlation_id"],
        "reply_to": message.properties["reply_to"],
    }
    task = app.tasks[light.name]
    tracer = getattr(task, "__trace__", None) or trace.build_tracer(task.name, task, app=app, hostname="bench@host")
    return Received(tracer, request["id"], args, kwargs, request)


def _burst(case: str, tasks: int) -> Callable[[], float]:
    tracer, task_id, args, kwargs, original = receive(case)

    def burst() -> float:
        requests = [original.copy() for _ in range(tasks)]
        began = time.perf_counter()
        for request in requests:
            tracer(task_id, args, kwargs, request)
        return (time.perf_counter() - began) / tasks

    return burst


def child(monitor: str, url: str, bursts: int, tasks: int, pause: float) -> dict[str, float]:
    """Set up *monitor* and time it. Returns the seconds that one task takes, for each case."""
    MONITORS[monitor](url)

    def work() -> dict[str, float]:
        medians = {}
        for case in TIMED:
            burst = _burst(case, tasks)
            burst()
            times = []
            for _ in range(bursts):
                time.sleep(pause)
                times.append(burst())
            medians[case] = statistics.median(times)
        return medians

    result: dict[str, float] = in_child(work)
    return result


def _in_own_process(options: list[str]) -> dict[str, float]:
    """Run ``child`` in a new process, and return its result. *options* are the arguments of ``child``."""
    done = subprocess.run([sys.executable, __file__, "--child", *options], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        message = f"{options[0]} failed:\n{done.stderr}"
        raise RuntimeError(message)
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


# -- all of them --------------------------------------------------------------------------------------------------


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - harness.run calls it with one argument
    """Run all monitors in rounds, and compare them."""
    rounds, *counts = SMOKE if smoke else FULL
    taken: dict[str, dict[str, list[float]]] = {case: {name: [] for name in MONITORS} for case in TIMED}
    with tempfile.TemporaryDirectory() as folder, redis_server.run(Path(folder)) as url:
        for number in range(rounds):
            names = [*MONITORS]
            for name in names[number % len(names) :] + names[: number % len(names)]:
                options = [name, url, *map(str, counts)]
                for case, seconds in _in_own_process(options).items():
                    taken[case][name].append(seconds)
    added = {
        case: {
            name: [with_it - without for with_it, without in zip(times[name], times[NONE], strict=True)]
            for name in MONITORS
            if name != NONE
        }
        for case, times in taken.items()
    }
    medians = {case: {name: statistics.median(times) for name, times in by.items()} for case, by in added.items()}
    rows = [[NONE, *(spread(taken[case][NONE], 1e6) for case in TIMED)]]
    rows += [
        [
            name,
            *(
                f"+{spread(added[case][name], 1e6)} ({medians[case][name] / medians[case][EMPTY]:.1f})"
                for case in TIMED
            ),
        ]
        for name in MONITORS
        if name != NONE
    ]
    return Answer(
        title="How much time does monitoring add to one task?",
        head=["µs added to a task (multiple of an empty receiver)", *TIMED],
        rows=rows,
        claims=[claim for case in TIMED for claim in claims(case, medians[case])],
        chart=Chart(
            "Time added to one task",
            "µs a task (logarithmic)",
            "",
            {case: [(name, value * 1e6) for name, value in by.items()] for case, by in medians.items()},
            bars=True,
            log="x",
        ),
        notes=[
            "The floor is the least that any design can take which measures in the task's process and hands over the",
            "result: a receiver that looks up `task.request`, encodes args with orjson, and writes to a pipe.",
        ],
        versions=[
            "prometheus-client",
            "opentelemetry-sdk",
            "opentelemetry-instrumentation-celery",
            "ddtrace",
            "sentry-sdk",
        ],
    )


def claims(case: str, added: dict[str, float]) -> list[Claim]:
    """The targets for one case."""
    ours = added[OURS]
    others = {"a Redis pipeline for each task": 30.0, "OpenTelemetry": 12.0, "dd-trace": 14.0}
    if case.endswith("cut"):  # the others do not look at reprs
        others = {}
    return [
        Claim(
            f"{case}: celery_argsize compared with an empty receiver",
            ours / added[EMPTY],
            3.5 if case.endswith("cut") else 2.2,
        ),
        *(
            Claim(f"{case}: {name} compared with celery_argsize", added[name] / ours, target, at_least=True)
            for name, target in others.items()
        ),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        name, url, bursts, tasks, pause = sys.argv[2:]
        print(json.dumps(child(name, url, int(bursts), int(tasks), float(pause))), flush=True)
        os._exit(0)  # do not wait for the monitor's threads
    sys.exit(run(answer))
