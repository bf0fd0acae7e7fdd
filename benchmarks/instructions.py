"""How many instructions does monitoring add to one task? In all processes, and compared with other tools.

Times swing by 10 % and more. Counts of instructions do not: two runs agree within 1 %. The valgrind tool cachegrind
counts them. Where valgrind is missing, this benchmark says so and measures nothing.

For each monitor, one process under cachegrind imports all that is needed, and forks a main process for each run. It
sets the monitor up as a worker does, and forks a child. The child runs N tasks in Celery's own tracer, and ends. Then
the main process writes what it has, as a worker that stops. A run with 200 tasks and one with 1,200 have the same
set-up, so the difference between them, over all their processes, is the work of 1,000 tasks.

``--gate`` compares only celery_argsize with an empty receiver: CI fails if a target is missed.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "scripts"))

import redis_server  # noqa: E402 - the folders of our own modules are on sys.path only from here on
from celery import signals  # noqa: E402
from harness import Answer, Chart, Claim, run  # noqa: E402
from task_time import CASES, EMPTY, MONITORS, NONE, OURS, app, receive  # noqa: E402
from weigh import in_child  # noqa: E402

import celery_argsize  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Tasks in the two runs of which the difference counts: of a full run and of a smoke test.
FULL: Final = (200, 1200)
SMOKE: Final = (20, 40)

#: Nothing may depend on the clock, as all takes 50 times as long under valgrind. So what a tool writes once in a while
#: waits for an hour. OpenTelemetry still exports 512 spans at a time.
ENVIRONMENT: Final = {
    "PYTHONHASHSEED": "0",
    "CELERY_ARGSIZE_FLUSH_INTERVAL": "3600",
    "OTEL_BSP_SCHEDULE_DELAY": "3600000",
    "DD_TRACE_WRITER_INTERVAL_SECONDS": "3600",
}
VALGRIND: Final = ("valgrind", "-q", "--tool=cachegrind", "--cache-sim=no", "--branch-sim=no", "--trace-children=yes")

PURE: Final = "celery_argsize, pure Python"
OTEL, DATADOG, PIPELINE = "OpenTelemetry", "dd-trace", "a Redis pipeline for each task"


class Counted(NamedTuple):
    """One row of the table."""

    monitor: str
    """Its name in ``task_time.MONITORS``."""
    modules: tuple[str, ...] = ()
    """What it imports, to import it only once."""
    environment: Mapping[str, str] = {}


_OUR_MODULES: Final = ("celery_argsize.worker.assembly", "celery_argsize.stores.redis")
COUNTED: Final[Mapping[str, Counted]] = {
    NONE: Counted(NONE),
    EMPTY: Counted(EMPTY),
    OURS: Counted(OURS, _OUR_MODULES),
    PURE: Counted(OURS, _OUR_MODULES, {"CELERY_ARGSIZE_PURE": "1"}),
    "prometheus_client histogram": Counted("prometheus_client histogram", ("prometheus_client",)),
    OTEL: Counted(OTEL, ("nowhere",)),
    DATADOG: Counted(DATADOG, ("ddtrace",)),
    PIPELINE: Counted(PIPELINE, ("redis",)),
}
#: What celery_argsize added before its redesign, at commit e5351df: in the child, and in the main process.
BEFORE: Final = {"100 B": (71_000, 52_000), "1 KB, cut": (302_000, 93_000)}

#: Case → most that celery_argsize may add, in what an empty receiver adds.
TARGETS: Final = {"100 B": 2.2, "1 KB, whole": 2.2, "1 KB, cut": 3.5, "a datetime": 5.0}
#: This is for the first case, and so are the comparisons with other tools.
PURE_TARGET: Final = 4.5
FIRST: Final = "100 B"
OTHERS: Final = {OTEL: 12.0, DATADOG: 14.0, PIPELINE: 30.0}
#: Most percent by which two counts of a task may differ.
REPEATABLE: Final = 1.0
#: Writes that are counted to know what one takes.
WRITES: Final = 5


class Run(NamedTuple):
    """What one main process does."""

    case: str
    tasks: int
    """Tasks that each of its children runs."""
    children: int = 1
    """Children, one after another."""
    flush: bool = False
    """Whether celery_argsize writes between two children."""


class Ran(NamedTuple):
    """The instructions of one run. Those of a child begin with what its parent did before the fork."""

    main: int
    """In the main process."""
    child: int
    """In its last child."""
    total: int
    """In all processes."""


# -- in the process under cachegrind --------------------------------------------------------------------------------


def _child(case: str, tasks: int) -> int:
    """Run tasks as a prefork child does."""
    signals.worker_process_init.send(sender=None)
    tracer, task_id, args, kwargs, request = receive(case)
    for _ in range(tasks):
        tracer(task_id, args, kwargs, request.copy())
    signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)
    return os.getpid()


def _main(monitor: str, url: str, todo: Run) -> tuple[int, int]:
    """Set up *monitor*, run tasks, and write what was measured. Returns its own pid and that of the last child."""
    MONITORS[monitor](url)
    pid = 0
    for number in range(todo.children):
        if number and todo.flush:
            _flush()
        pid = in_child(partial(_child, todo.case, todo.tasks))
    if monitor == OURS:
        celery_argsize.uninstall(app)
    return os.getpid(), pid


def _flush() -> None:
    from celery_argsize.worker.monitor import installed  # noqa: PLC0415 - only ours needs it

    flusher: Any = getattr(installed(app), "flusher", None)
    if not flusher.flush(60.0):
        message = "celery_argsize did not write"
        raise RuntimeError(message)


def count(name: str, url: str, folder: str, runs: Iterable[Run]) -> list[tuple[list[int], list[str]]]:
    """Fork a main process for each run.

    Returns, for each run, three pids and the files of cachegrind that it left. The pids are those of the main process,
    of its last child, and of a process that was forked before and did nothing.
    """
    for module in COUNTED[name].modules:
        importlib.import_module(module)
    if COUNTED[name].monitor == OURS:  # what is told once a second would be told with many more of these slow tasks
        sys.modules["celery_argsize.worker.recorder"].AGAIN = 3600.0  # type: ignore[attr-defined]
    results = []
    for todo in runs:
        nothing = in_child(os.getpid)
        before = {file.name for file in Path(folder).iterdir()}
        pids = in_child(partial(_main, COUNTED[name].monitor, url, todo))
        files = {file.name for file in Path(folder).iterdir()}
        results.append(([*pids, nothing], [*files - before]))
    return results


# -- all of them ----------------------------------------------------------------------------------------------------


def _counts(name: str, url: str, runs: Sequence[Run]) -> list[Ran]:
    """Count the instructions of *runs* with the monitor *name*.

    Raises:
        RuntimeError: a run failed, or Redis does not have all tasks that celery_argsize measured.
    """
    with tempfile.TemporaryDirectory() as folder:
        app_name = Path(folder).name
        environment = {
            **os.environ,
            **ENVIRONMENT,
            "CELERY_ARGSIZE_APP_NAME": app_name,
            **COUNTED[name].environment,
        }

        def call(*before: str, runs: Sequence[Run]) -> str:
            command = [*before, sys.executable, __file__, "--count", name, url, folder, json.dumps(runs)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
            if done.returncode:
                message = f"{name} failed:\n{done.stderr}"
                raise RuntimeError(message)
            return done.stdout.splitlines()[-1]

        call(runs=[todo._replace(tasks=1) for todo in runs])  # fills the caches of Python and of the system
        results = json.loads(call(*VALGRIND, f"--cachegrind-out-file={folder}/%p", runs=runs))
        figures = {file.name: _instructions(file) for file in Path(folder).iterdir()}
    if COUNTED[name].monitor == OURS:
        in_redis = celery_argsize.get_size_summary(redis_url=url, app_name=app_name).total_tasks
        ran = sum(todo.children * (1 + todo.tasks) for todo in runs)
        if in_redis != ran:
            message = f"{name}: {ran} tasks ran, and Redis has {in_redis}"
            raise RuntimeError(message)
    counted = []
    for pids, files in results:
        main, child, nothing = (figures[str(pid)] for pid in pids)
        counted.append(Ran(main - nothing, child - nothing, sum(figures[file] - nothing for file in files)))
    return counted


def _instructions(file: Path) -> int:
    """The total in a file of cachegrind. Its last line is ``summary: 123``."""
    return int(file.read_text(encoding="utf-8", errors="replace").rpartition("summary:")[2])


def _added(name: str, url: str, cases: Sequence[str], counts: tuple[int, int]) -> dict[str, Ran]:
    """The instructions of one task with the monitor *name*, for each case."""
    found = iter(_counts(name, url, [Run(case, tasks) for case in cases for tasks in counts]))
    few, many = counts
    return {
        case: Ran(*((large - small) // (many - few) for small, large in zip(next(found), next(found), strict=True)))
        for case in cases
    }


def _write(url: str, tasks: int) -> int:
    """The instructions that one write of celery_argsize takes in the main process."""
    once, often = _counts(OURS, url, [Run(FIRST, tasks, 1 + WRITES, flush=flush) for flush in (False, True)])
    return (often.main - once.main) // WRITES


def _measure(counts: tuple[int, int], plan: Mapping[str, Sequence[str]]) -> tuple[dict[str, dict[str, Ran]], Ran]:
    """Count for each monitor and each case of *plan*, and once more for celery_argsize in the first case."""
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_server.run(Path(folder)) as url,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        again = pool.submit(_added, OURS, url, [FIRST], counts)
        tasks = {name: pool.submit(_added, name, url, cases, counts) for name, cases in plan.items()}
        return {name: result.result() for name, result in tasks.items()}, again.result()[FIRST]


def _interval(tasks: int) -> str:
    """What celery_argsize adds in each interval, as a sentence."""
    with tempfile.TemporaryDirectory() as folder, redis_server.run(Path(folder)) as url:
        write = _write(url, tasks)
    return (
        f"- celery_argsize writes only at the end here. In a worker, each interval adds one write: {write / 1000:,.0f} "
        f"thousand\n  instructions for one task name, with {tasks} tasks between two writes."
    )


def answer(smoke: bool, *, gate: bool = False) -> Answer:  # noqa: FBT001 - harness.run calls it with one argument
    """Count for all monitors. With *gate*, only what has a target for celery_argsize and an empty receiver."""
    counts = SMOKE if smoke else FULL
    cases = [FIRST] if smoke else [*TARGETS] if gate else [*CASES]
    names = [NONE, EMPTY, OURS] if smoke else [NONE, EMPTY, OURS, PURE] if gate else [*COUNTED]
    head = ["thousand instructions added to a task (multiple of an empty receiver)", *cases]
    title = "How many instructions does monitoring add to one task, in all processes?"
    if shutil.which("valgrind") is None:
        chart = Chart("Instructions added to one task", "", "", {}, bars=True)
        return Answer(title, head, [], [], chart, ["There is no valgrind on this machine: nothing was counted."])
    plan = {name: [FIRST] if name == PURE and gate else cases for name in names}
    tasks, again = _measure(counts, plan)
    added = {
        name: {case: ran.total - tasks[NONE][case].total for case, ran in by.items()}
        for name, by in tasks.items()
        if name != NONE
    }
    # It does not look at arguments, so its cases only differ by chance.
    added_by_empty = dict.fromkeys(cases, round(statistics.median(added[EMPTY].values())))
    in_main = tasks[OURS][FIRST].main - tasks[NONE][FIRST].main
    ours, repeated = added[OURS][FIRST], again.total - tasks[NONE][FIRST].total
    off = abs(again.total / tasks[OURS][FIRST].total - 1) * 100
    rows = [[NONE, *(f"{tasks[NONE][case].total / 1000:,.1f}" for case in cases)]]
    rows += [_row(name, cases, by, added_by_empty) for name, by in added.items()]
    before = {case: sum(parts) for case, parts in BEFORE.items()}
    rows.append(_row("celery_argsize before (history)", cases, before, added_by_empty))
    return Answer(
        title=title,
        head=head,
        rows=rows,
        claims=[
            *_claims(added, added_by_empty),
            Claim("A task with celery_argsize, counted twice", off, REPEATABLE, "% apart"),
        ],
        chart=Chart(
            "Instructions added to one task",
            "thousand instructions a task (logarithmic)",
            "",
            {case: [(name, by[case] / 1000) for name, by in added.items() if case in by] for case in cases},
            bars=True,
            log="x",
        ),
        notes=[
            f"- {FIRST}: {in_main / 1000:,.1f} thousand of what celery_argsize adds are in the main process. A second",
            f"  count has {repeated / 1000:,.1f} thousand instead of {ours / 1000:,.1f}.",
            "- No tool writes by the clock here, as all takes 50 times as long. The work of Redis itself is not",
            "  counted: the row of the pipeline is its client side.",
            *([] if gate else [_interval(counts[0])]),
        ],
        versions=["prometheus-client", "opentelemetry-sdk", "opentelemetry-instrumentation-celery", "ddtrace"],
    )


def _row(name: str, cases: Iterable[str], added: Mapping[str, int], empty: Mapping[str, int]) -> list[str]:
    """A row of the table."""
    cells = [f"+{added[case] / 1000:,.1f} ({added[case] / empty[case]:.1f})" if case in added else "" for case in cases]
    return [name, *cells]


def _claims(added: Mapping[str, Mapping[str, int]], empty: Mapping[str, int]) -> list[Claim]:
    """The targets for all that was counted."""
    targets = {(OURS, case): target for case, target in TARGETS.items()} | {(PURE, FIRST): PURE_TARGET}
    return [
        Claim(f"{case}: {name} compared with {EMPTY}", added[name][case] / empty[case], target)
        for (name, case), target in targets.items()
        if case in added.get(name, ())
    ] + [
        Claim(f"{FIRST}: {name} compared with {OURS}", added[name][FIRST] / added[OURS][FIRST], target, at_least=True)
        for name, target in OTHERS.items()
        if name in added
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--count"]:
        monitor, address, output, todo = sys.argv[2:]
        print(json.dumps(count(monitor, address, output, [Run(*fields) for fields in json.loads(todo)])), flush=True)
        os._exit(0)  # do not wait for the monitor's threads
    sys.exit(run(answer, gate=partial(answer, gate=True)))
