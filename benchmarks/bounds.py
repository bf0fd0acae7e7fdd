"""Measures whether memory stays bounded: a million names, a million runs, arguments of 100 MB, hostile names.

``make bench-reliability`` runs it, and it prints the tables of docs/reliability.md. It needs Linux and 8 GB of free
memory. Each load goes the whole way: a forked child sends Celery's ``task_prerun`` for light tasks, and a main process
with its pipe and its thread writes to a real Redis. The memory of all three is read before a load and at its peak.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "tests"), str(HERE.parent / "scripts")]

import redis  # noqa: E402 - the folders of our own modules are on sys.path only from here on
import redis_server  # noqa: E402
from celery import Celery, signals  # noqa: E402
from celery.utils.saferepr import saferepr  # noqa: E402
from weigh import Weighed, cut_header, in_child  # noqa: E402

import celery_argsize  # noqa: E402
from celery_argsize.measuring.json_size import Walked  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

MB: Final = 1 << 20
#: The environment variable ``SCALE=0.01`` makes all loads shorter, to try them.
SCALE: Final = float(os.environ.get("SCALE", "1"))
#: Runs of a load.
RUNS: Final = round(1_000_000 * SCALE)
#: Runs before memory is read, which load modules and fill caches.
WARM: Final = 2000
#: Characters of JSON of the big arguments.
BIG: Final = round(100 * MB * SCALE)
#: Limits that cut the reprs of the big arguments.
LIMITS: Final = (1024, 131_072)
#: Headers that come with the big arguments: a whole repr, or one that is cut at a limit.
REPRS: Final = ("whole", *map(str, LIMITS))


class Run(NamedTuple):
    """One task run of a load."""

    name: str
    task_id: str
    args: Any
    argsrepr: str
    origin: str


def _runs(**changed: Callable[[int], Any]) -> Iterator[Run]:
    """The runs of a load. *changed*: field → function that makes its value from the number of the run."""
    usual: dict[str, Callable[[int], Any]] = {
        "name": lambda _: "music.scan",
        "task_id": lambda n: f"4711-{n:032}",
        "args": lambda n: (n,),
        "argsrepr": lambda n: f"({n},)",
        "origin": lambda _: "gen1@web-1",
    }
    makers = {**usual, **changed}
    return (Run(**{field: make(n) for field, make in makers.items()}) for n in range(RUNS))


#: Args and their cut repr. The cut is between two members, so the repr shows the limit of the sending host.
CUT_ARGS: Final = ([*range(400)],)
CUT: Final = saferepr(CUT_ARGS, 1024)


def _hosts_and_names() -> Iterator[Run]:
    """Every host sends every task name, and each header shows a limit. No other load keeps more about hosts."""
    return _runs(
        origin=lambda n: f"gen1@{'h' * 50}{n // 250 % 1000}",
        name=lambda n: f"{'n' * 150}{n % 250}",
        args=lambda _: CUT_ARGS,
        argsrepr=lambda _: CUT,
    )


#: Name of the load → function that makes its runs.
LOADS: Final[Mapping[str, Callable[[], Iterator[Run]]]] = {
    "distinct task names": lambda: _runs(name=lambda n: f"music.task_{n}"),
    "runs of one task, each with its own id": _runs,
    "distinct sending hosts": lambda: _runs(origin=lambda n: f"gen1@host-{n}"),
    "hosts and names, with cut reprs": _hosts_and_names,
    "ids of 10 KB": lambda: _runs(task_id=lambda n: f"{n}" + "i" * 10_240),
    "names of 10 KB": lambda: _runs(name=lambda n: "x" * 10_240 + str(n)),
    "names of 4-byte characters": lambda: _runs(name=lambda n: "🎵" * 200 + str(n)),
    "names with newlines and control characters": lambda: _runs(name=lambda n: f"a\n[CELERY]\x1b[31m\x00\r{n}"),
    "names with lone surrogates": lambda: _runs(name=lambda n: f"\ud800{n}\udfff"),
}


def _record(number: int) -> dict[str, Any]:
    return {"id": number, "title": "A song of some length", "tags": ["rock", "pop"], "year": 1999, "none": None}


#: Shape name → function that makes args of about the given number of characters.
SHAPES: Final[Mapping[str, Callable[[int], Any]]] = {
    "records": lambda size: ([_record(n) for n in range(size // 92)],),
    "tiny dicts": lambda size: ([{"a": n % 10} for n in range(size // 8)],),
    "empty lists": lambda size: ([[] for _ in range(size // 3)],),
    "ints": lambda size: ([*range(10_000_000, 10_000_000 + size // 9)],),
    "floats": lambda size: ([n / 7 for n in range(size // 18)],),
    "dict of dicts": lambda size: ({f"track-{n}": _record(n) for n in range(size // 106)},),
    "nested 14 levels deep": lambda size: ([_chain(n) for n in range(size // 40)],),
    "one text": lambda size: ("x" * size,),
    "one text in Chinese": lambda size: ("长" * size,),
    "short texts with quotes": lambda size: (['it\'s "so"'] * (size // 14),),
    "a blob, then small ones": lambda size: (["x" * (size // 2), *range(size // 16), "x"],),
    "datetimes": lambda size: ([dt.datetime(2026, 11, 21, 10, n // 60 % 60, n % 60) for n in range(size // 60)],),  # noqa: DTZ001
    "int keys": lambda size: ([{n: n} for n in range(size // 21)],),
}


def _chain(number: int) -> Any:
    value: Any = number
    for _ in range(12):
        value = [value]
    return value


# -- sending ------------------------------------------------------------------------------------------------------


class _Task:
    """The attributes of a task that receivers of the signal read."""

    app: Celery
    name: str
    request: Any


_task: Final = _Task()


def _send(app: Celery, run: Run) -> None:
    _task.app, _task.name = app, run.name
    _task.request = SimpleNamespace(
        id=run.task_id,
        args=run.args,
        kwargs={},
        argsrepr=run.argsrepr,
        kwargsrepr="{}",
        origin=run.origin,
        is_eager=False,
    )
    signals.task_prerun.send(sender=_task, task=_task, task_id=run.task_id, args=run.args, kwargs={})


def _warm(app: Celery) -> None:
    for number in range(WARM):
        _send(app, Run("warm", f"{number:036}", (number,), f"({number},)", "gen1@warm"))


def _in_child(work: Callable[[], Any]) -> Any:
    """Run *work* in a forked child that ends with Celery's signal, as a worker's child does. Returns its result."""

    def whole() -> Any:
        result = work()
        signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)
        return result

    return in_child(whole)


def _start(url: str) -> tuple[Celery, Any]:
    logging.getLogger("celery_argsize").setLevel(logging.ERROR)
    app = Celery("bounds", broker="memory://", set_as_current=False)
    monitor: Any = celery_argsize.install(app, redis_url=url, flush_interval=1)
    monitor.start(monitor.settings, "bounds@host", children=1)
    return app, monitor


# -- loads --------------------------------------------------------------------------------------------------------


def load(name: str, url: str) -> dict[str, Any]:
    """Send the load *name*. Returns the memory that it took, and what was counted."""
    app, monitor = _start(url)

    def work() -> tuple[float, float]:
        _warm(app)
        weighed, began = Weighed(), time.perf_counter()
        for run in LOADS[name]():
            _send(app, run)
        return weighed.more(), (time.perf_counter() - began) / RUNS * 1e6

    # Let the main process import and connect before its memory is read.
    _in_child(lambda: _warm(app))
    monitor.flusher.flush(10.0)
    weighed = Weighed()
    child, micros = _in_child(work)
    monitor.flusher.flush(60.0)
    main = weighed.more()
    summary = celery_argsize.get_size_summary(redis_url=url, app_name="bounds")
    monitor.stop(report=False)
    return {
        "main": main,
        "child": child,
        "micros": micros,
        **_in_redis(url),
        "runs": summary.total_tasks,
        "names": sum(task.name != "__other__" for task in summary.tasks),
        "other": sum(task.count for task in summary.tasks if task.name == "__other__"),
        "longest": max(len(task.name.encode()) for task in summary.tasks),
    }


def _in_redis(url: str) -> dict[str, Any]:
    with redis.Redis.from_url(url) as client:
        keys = [*client.scan_iter("celery-argsize*", count=1000)]
        return {"keys": len(keys), "redis": sum(client.memory_usage(key, samples=0) or 0 for key in keys) / MB}


# -- big arguments ------------------------------------------------------------------------------------------------


def _header(args: Any, what: str) -> str:
    """The header that Celery would send for *args*: the repr cut at the limit *what*, or one that looks whole."""
    if what != "whole":
        return cut_header(args, int(what))
    return "([],)" if isinstance(args[0], list) else "({},)" if isinstance(args[0], dict) else "('',)"


def shape(name: str, url: str) -> dict[str, Any]:
    """Measure big arguments of one shape, with a whole repr and with cut ones."""
    app, monitor = _start(url)
    _in_child(lambda: _warm(app))
    figures: dict[str, Any] = {}
    for what in REPRS:

        def work(what: str = what) -> tuple[float, float, int, int]:
            _warm(app)
            args = SHAPES[name](BIG)  # made in the child, so that no memory is shared with the main process
            header = _header(args, what)
            weighed, began = Weighed(), time.perf_counter()
            _send(app, Run("big", "1", args, header, "gen1@web-1"))
            seconds, more = time.perf_counter() - began, weighed.more()
            size = Walked(args).size
            if size is None:
                raise ValueError(name)
            return seconds * 1e3, more, *size

        figures[what] = _in_child(work)
    monitor.flusher.flush(10.0)
    summary = celery_argsize.get_size_summary(redis_url=url, app_name="bounds")
    monitor.stop(report=False)
    (task,) = [task for task in summary.tasks if task.name == "big"]
    _, _, chars, size = figures["whole"]
    return {**figures, "mb": size / MB, "right": task.count == len(REPRS) and task.args.max == chars}


# -- all of it ----------------------------------------------------------------------------------------------------


def _alone(kind: str, name: str) -> dict[str, Any]:
    """Run one load or shape in a process of its own, with a Redis of its own."""
    with tempfile.TemporaryDirectory() as folder, redis_server.run(Path(folder)) as url:
        work = {"load": load, "shape": shape}[kind]
        figures: dict[str, Any] = in_child(lambda: work(name, url))
        return figures


def _all(kind: str, names: list[str], *, as_json: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run all *names*, and yield the figures of each; with *as_json*, print them as JSON instead."""
    for name in names:
        figures = _alone(kind, name)
        if as_json:
            print(json.dumps({"name": name, **figures}), flush=True)
        else:
            yield name, figures


def main(*words: str) -> None:
    """Print the tables. With *words*, run only loads and shapes that have one of the words in their name.

    The word ``--json`` prints lines of JSON instead.
    """
    as_json = "--json" in words
    words = tuple(word for word in words if word != "--json")

    def chosen(names: Iterable[str]) -> list[str]:
        return [name for name in names if not words or any(word in name for word in words)]

    if not as_json:
        print(f"| {RUNS:,} … | kept under their name | `__other__` | main process | child | Redis | keys | a run |")
        print("|---|---|---|---|---|---|---|---|")
    for name, figures in _all("load", chosen(LOADS), as_json=as_json):
        if figures["runs"] != RUNS + 2 * WARM:
            message = f"{name}: {figures['runs']:,} runs were counted"
            raise RuntimeError(message)
        print(
            f"| {name} | {figures['names']:,} | {figures['other']:,} runs | +{figures['main']:.1f} MB | "
            f"+{figures['child']:.1f} MB | {figures['redis']:.1f} MB | {figures['keys']:,} | "
            f"{figures['micros']:.0f} µs |",
            flush=True,
        )
    if not as_json:
        print()
        heads = " | ".join(["repr whole", *(f"cut at {limit:,}" for limit in LIMITS)])
        print(f"| {BIG / MB:.0f} million characters of … | JSON | {heads} |")
        print("|---|---|---|---|---|")
    for name, figures in _all("shape", chosen(SHAPES), as_json=as_json):
        cells = [f"{ms:,.0f} ms, +{mb:.1f} MB" for ms, mb, *_ in (figures[what] for what in REPRS)]
        wrong = "" if figures["right"] else " WRONG"
        print(f"| {name} | {figures['mb']:.0f} MB{wrong} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
