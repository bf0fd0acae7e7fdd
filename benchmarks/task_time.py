"""What does a task pay? Time added to one traced task, beside everything that a user might run instead.

A task with an empty body runs in Celery's own tracer (``build_tracer``), in a forked child as in a worker; its message
was published by the same process, so it has the headers that an instrumented producer gives it. Each monitor runs in
processes of its own, one after another in rounds. Tasks come in bursts with pauses between them, as the main process
of a worker needs time to take what its children hand over; the pauses are not timed. Taken is the median of a round's
bursts, less that of the same round without a receiver. A burst runs with warm caches, for all of them; ``worker`` shows
what is left of that in a worker.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

HERE: Final = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "scripts"))

import redis_server  # noqa: E402 - from here on, what is ours is found too
from celery import Celery, signals  # noqa: E402
from celery.app import trace  # noqa: E402
from harness import Answer, Chart, Claim, run, spread  # noqa: E402
from weigh import in_child  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Full runs: rounds, bursts in a round, tasks in a burst, seconds between bursts. And a smoke test's.
FULL: Final = (4, 8, 500, 0.03)
SMOKE: Final = (1, 2, 20, 0.0)

RECORD: Final = {"id": 1007, "title": "Adagio", "artist": "Ensemble", "year": 1987}
#: Arguments by name; what Celery made of their repr is said, as it decides what there is to do.
CASES: Final[Mapping[str, tuple[Any, ...]]] = {
    "100 B": (12345, "track-42", "It has 100 bytes of JSON, as most tasks do; this text fills them up.  "),
    "1 KB, whole": (12345, "track-42", "Twelve words of nine bytes or so make one line of this text, and more. " * 14),
    "1 KB, cut": ([{**RECORD, "id": 1000 + number} for number in range(17)],),
}

app: Final = Celery("task_time", broker="memory://", set_as_current=False)


@app.task(name="app.tasks.light", ignore_result=True)
def light(*_: Any) -> None:
    """Do nothing."""


# -- monitors -----------------------------------------------------------------------------------------------------


def _compact(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def nothing(_: str) -> None:
    """No receiver."""


def empty(_: str) -> None:
    """A receiver that does nothing."""
    signals.task_prerun.connect(lambda **_: None, weak=False)


def floor(_: str) -> None:
    """The least that measuring and handing over can take: look up the request, encode, write to a pipe."""
    import marshal  # noqa: PLC0415 - as in the others, what only one needs
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


def ours(url: str) -> None:
    """celery_argsize as a worker has it: Redis, log of large tasks, all of it."""
    import celery_argsize  # noqa: PLC0415

    monitor: Any = celery_argsize.install(app, redis_url=url)
    monitor.start(monitor.settings, "bench@host", in_process=False)


def seed(url: str) -> None:
    """The size guide's design: json.dumps, and a Redis pipeline for each task."""
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
    """A histogram of prometheus_client, and json.dumps."""
    from prometheus_client import Histogram  # noqa: PLC0415

    histogram = Histogram("args_size", "Size of args and kwargs", ["task"])

    def prerun(task: Any = None, args: Any = None, kwargs: Any = None, **_: Any) -> None:
        histogram.labels(task.name).observe(_compact(args) + _compact(kwargs))

    signals.task_prerun.connect(prerun, weak=False)


def opentelemetry(_: str) -> None:
    """OpenTelemetry's instrumentation, with spans that go nowhere."""
    import nowhere  # noqa: PLC0415

    nowhere.instrument()


def datadog(_: str) -> None:
    """dd-trace's integration, with spans that no agent takes."""
    os.environ |= {"DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false", "DD_REMOTE_CONFIGURATION_ENABLED": "false"}
    import logging  # noqa: PLC0415

    import ddtrace  # noqa: PLC0415

    logging.getLogger("ddtrace").setLevel(logging.CRITICAL)  # there is no agent, and it says so
    ddtrace.patch(celery=True)


def sentry(_: str) -> None:
    """Sentry's integration, with traces that go nowhere."""
    import sentry_sdk  # noqa: PLC0415
    from sentry_sdk.integrations.celery import CeleryIntegration  # noqa: PLC0415

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        integrations=[CeleryIntegration()],
        default_integrations=False,
        traces_sample_rate=1.0,
        transport=lambda _: None,
    )


#: By the name in the table.
MONITORS: Final[Mapping[str, Callable[[str], None]]] = {
    "no receiver": nothing,
    "an empty receiver": empty,
    "floor: request, orjson, one write": floor,
    "celery_argsize": ours,
    "prometheus_client histogram": prometheus,
    "OpenTelemetry": opentelemetry,
    "dd-trace": datadog,
    "Sentry": sentry,
    "the guide: Redis for each task": seed,
}
NONE, EMPTY, _, OURS = [*MONITORS][:4]


# -- in the monitor's own process ---------------------------------------------------------------------------------


def _request(args: tuple[Any, ...]) -> dict[str, Any]:
    """What a worker makes of a message of the task."""
    light.apply_async(args)
    with app.connection_for_write() as connection:
        message = connection.SimpleQueue("celery").get(block=False)
        message.ack()
        return {
            **message.headers,
            "args": args,
            "kwargs": {},
            "is_eager": False,
            "hostname": "bench@host",
            "delivery_info": message.delivery_info,
            "correlation_id": message.properties["correlation_id"],
            "reply_to": message.properties["reply_to"],
        }


def _burst(args: tuple[Any, ...], tasks: int) -> Callable[[], float]:
    request = _request(args)
    task = app.tasks[light.name]
    tracer = getattr(task, "__trace__", None) or trace.build_tracer(task.name, task, app=app, hostname="bench@host")

    def burst() -> float:
        requests, decoded = [request.copy() for _ in range(tasks)], [*args]
        began = time.perf_counter()
        for one in requests:
            tracer(one["id"], decoded, {}, one)
        return (time.perf_counter() - began) / tasks

    return burst


def child(monitor: str, url: str, bursts: int, tasks: int, pause: float) -> dict[str, float]:
    """Seconds that one task takes, by case."""
    MONITORS[monitor](url)

    def work() -> dict[str, float]:
        found = {}
        for name, args in CASES.items():
            burst = _burst(args, tasks)
            burst()
            times = []
            for _ in range(bursts):
                time.sleep(pause)
                times.append(burst())
            found[name] = statistics.median(times)
        return found

    result: dict[str, float] = in_child(work)
    return result


def _apart(words: list[str]) -> dict[str, float]:
    """What ``child`` finds, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--child", *words], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        message = f"{words[0]} failed:\n{done.stderr}"
        raise RuntimeError(message)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


# -- all of them --------------------------------------------------------------------------------------------------


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - as the harness calls it
    """Run all monitors in rounds, and compare."""
    rounds, *counts = SMOKE if smoke else FULL
    taken: dict[str, dict[str, list[float]]] = {case: {name: [] for name in MONITORS} for case in CASES}
    with tempfile.TemporaryDirectory() as folder, redis_server.run(Path(folder)) as url:
        for number in range(rounds):
            names = [*MONITORS]
            for name in names[number % len(names) :] + names[: number % len(names)]:
                words = [name, url, *map(str, counts)]
                for case, seconds in _apart(words).items():
                    taken[case][name].append(seconds)
    added = {
        case: {
            name: [one - none for one, none in zip(times[name], times[NONE], strict=True)]
            for name in MONITORS
            if name != NONE
        }
        for case, times in taken.items()
    }
    medians = {case: {name: statistics.median(times) for name, times in by.items()} for case, by in added.items()}
    rows = [[NONE, *(spread(taken[case][NONE], 1e6) for case in CASES)]]
    rows += [
        [
            name,
            *(
                f"+{spread(added[case][name], 1e6)} ({medians[case][name] / medians[case][EMPTY]:.1f})"
                for case in CASES
            ),
        ]
        for name in MONITORS
        if name != NONE
    ]
    return Answer(
        title="What does one task pay?",
        head=["µs a task; in brackets, in empty receivers", *CASES],
        rows=rows,
        claims=[claim for case in CASES for claim in claims(case, medians[case])],
        chart=Chart(
            "Time added to one task",
            "µs a task (logarithmic)",
            "",
            {case: [(name, value * 1e6) for name, value in by.items()] for case, by in medians.items()},
            bars=True,
            log="x",
        ),
        notes=[
            "The floor is what no design can be under that measures in the task's process and hands over: a receiver",
            "that looks up ``task.request``, encodes args with orjson, and writes one message to a pipe.",
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
    """The targets, for one case."""
    mine = added[OURS]
    others = {"the guide: Redis for each task": 30.0, "OpenTelemetry": 8.0, "dd-trace": 12.0}
    return [
        Claim(f"{case}: ours in empty receivers", mine / added[EMPTY], 3.5),
        *(
            Claim(f"{case}: {name} in ours", added[name] / mine, target, at_least=True)
            for name, target in others.items()
        ),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        name, url, bursts, tasks, pause = sys.argv[2:]
        print(json.dumps(child(name, url, int(bursts), int(tasks), float(pause))), flush=True)
        os._exit(0)  # whatever threads the monitor has
    sys.exit(run(answer))
