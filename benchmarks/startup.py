"""Measures how much longer an import, an app, ``celery --help`` and a worker take to start with celery_argsize.

    python benchmarks/startup.py

Two virtual environments have the same packages, and only one of them has celery_argsize. Each start is a new
interpreter; starts with and without celery_argsize take turns, and the first of each does not count. CPU is the user
and system time of the process. A worker has started when it sends ``worker_ready``. Its broker is a Redis of its own,
and it does not look for other workers (mingle), which would take a second.
"""

from __future__ import annotations

import os
import select
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "scripts"))

import redis_server  # noqa: E402
from harness import Answer, Chart, Claim, ratio, run, spread  # noqa: E402

import celery_argsize  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

#: Targets: milliseconds that we may add to an import, and CPU time of ``celery --help`` compared with that without us.
IMPORT_MS: Final = 15
HELP: Final = 1.03
#: Seconds to wait for a worker.
PATIENCE: Final = 20

INSTALL: Final = "import celery_argsize; celery_argsize.install(app)"
APP: Final = """\
import os
from celery import Celery
from celery.signals import worker_ready

app = Celery("startup", broker=os.environ["BROKER"])
{}

@worker_ready.connect
def ready(**_):
    os.write(int(os.environ["READY"]), b".")
"""
#: Name of the start → arguments for Python, without and with celery_argsize.
STARTS: Final = {
    "import celery": (["-c", "import celery"], ["-c", "import celery, celery_argsize"]),
    "an app": tuple(["-c", f"import celery; app = celery.Celery(); {then}"] for then in ("", INSTALL)),
    "celery --help": (["-m", "celery", "--help"],) * 2,
}
#: Number of starts of each kind. The smaller the difference, the more starts it takes to see it.
ROUNDS: Final = {"import celery": 25, "an app": 15, "celery --help": 35, "a worker": 8}
WORKER: Final = ["-m", "celery", "-A", "startup_app", "worker", "-P", "prefork", "-c", "2", "--without-mingle"]


class Took(NamedTuple):
    """How long one start took."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of CPU time."""


class Environment:
    """A virtual environment in *folder* with all packages that are installed here, with or without celery_argsize."""

    def __init__(self, folder: Path, *, with_us: bool) -> None:
        self._folder = folder
        self._log = folder / "log"
        venv.create(folder, symlinks=True)
        base = {"base": str(folder), "platbase": str(folder)}
        packages = Path(sysconfig.get_path("purelib", "posix_prefix", base))
        for path in dict.fromkeys(map(sysconfig.get_path, ("purelib", "platlib"))):
            for entry in Path(path).iterdir():
                if "celery_argsize" not in entry.name and not (packages / entry.name).exists():
                    (packages / entry.name).symlink_to(entry)
        if with_us:
            _add_argsize(packages)
        (folder / "startup_app.py").write_text(APP.format(INSTALL if with_us else ""), encoding="utf-8")
        self.start(["-m", "celery", "--help"])
        if ("argsize" in self.log) is not with_us:
            message = f"celery --help shows the wrong commands:\n{self.log}"
            raise RuntimeError(message)

    @property
    def log(self) -> str:
        """The output of the latest start."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _spawn(self, arguments: list[str], *files: int, **variables: str) -> subprocess.Popen[bytes]:
        # In a folder of its own, where nothing else can be imported, and without variables for Python or Celery.
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        with self._log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - our own
                [self._folder / "bin" / "python", *arguments],
                cwd=self._folder,
                env={**kept, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=files,
                start_new_session=True,
            )

    def start(self, arguments: list[str]) -> Took:
        """Run Python with *arguments* until it ends."""
        began = time.perf_counter()
        process = self._spawn(arguments)
        _, status, used = os.wait4(process.pid, 0)
        took = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(self.log)
        return Took(took, used.ru_utime + used.ru_stime)

    def start_worker(self, broker: str) -> Took:
        """Start a worker, wait until it is ready, and kill it. Its CPU time is not measured."""
        readable, writable = os.pipe()
        began = time.perf_counter()
        worker = self._spawn(WORKER, writable, BROKER=broker, READY=str(writable))
        try:
            os.close(writable)
            ready = select.select([readable], [], [], PATIENCE)[0] and os.read(readable, 1)
            took = time.perf_counter() - began
        finally:
            os.close(readable)
            os.killpg(worker.pid, signal.SIGKILL)  # kills its children too
            worker.wait()
        if not ready:
            raise RuntimeError(self.log)
        return Took(took, 0.0)


def _add_argsize(packages: Path) -> None:
    """Add celery_argsize to the folder *packages* of an environment, as a wheel would."""
    (packages / "celery_argsize").symlink_to(Path(celery_argsize.__file__).parent)
    installed = metadata.distribution("celery-argsize")
    info = packages / f"celery_argsize-{installed.version}.dist-info"
    info.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (info / name).write_text(installed.read_text(name) or "", encoding="utf-8")


# -- results ------------------------------------------------------------------------------------------------------


class Both(NamedTuple):
    """Seconds of the starts without and with celery_argsize, one of each for each round."""

    without: list[float]
    with_us: list[float]

    @property
    def more(self) -> float:
        """By how many milliseconds a start takes longer with celery_argsize."""
        return statistics.median(after - before for before, after in zip(*self, strict=True)) * 1000

    @property
    def times(self) -> float:
        """Time with celery_argsize divided by the time without."""
        return ratio(self.with_us, self.without)

    def row(self, name: str) -> list[str]:
        """The row of the table."""
        return [name, spread(self.without, 1000), spread(self.with_us, 1000), f"{self.more:+.1f}", f"{self.times:.3f}"]


def by_turns(rounds: int, without: Callable[[], Took], with_us: Callable[[], Took]) -> tuple[Both, Both]:
    """Run both in turns. Returns their wall time and their CPU time.

    The first start of each does not count. In every other round, the other one comes first.
    """
    without(), with_us()
    pairs = []
    for number in range(rounds):
        if number % 2:
            after, before = with_us(), without()
        else:
            before, after = without(), with_us()
        pairs.append((before, after))
    return (
        Both([before.wall for before, _ in pairs], [after.wall for _, after in pairs]),
        Both([before.cpu for before, _ in pairs], [after.cpu for _, after in pairs]),
    )


def measured(folder: Path, rounds: dict[str, int]) -> dict[str, Both]:
    """Measure all starts. Returns name of the start → times."""
    without, with_us = (Environment(folder / name, with_us=name == "with") for name in ("without", "with"))
    times: dict[str, Both] = {}
    for name, (arguments, our_arguments) in STARTS.items():
        times[name], times[f"{name}, CPU"] = by_turns(
            rounds[name], partial(without.start, arguments), partial(with_us.start, our_arguments)
        )
    with redis_server.run(folder) as broker:
        starts = partial(without.start_worker, broker), partial(with_us.start_worker, broker)
        times["a worker"], _ = by_turns(rounds["a worker"], *starts)
    return times


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - harness.run calls it with one argument
    """Measure all starts, and compare them."""
    with tempfile.TemporaryDirectory() as folder:
        times = measured(Path(folder), dict.fromkeys(ROUNDS, 1) if smoke else ROUNDS)
    walls = {name: both for name, both in times.items() if not name.endswith("CPU")}
    return Answer(
        title="How much longer does a start take with celery_argsize?",
        head=["milliseconds", "without", "with", "more", "times"],
        rows=[both.row(name) for name, both in times.items()],
        claims=[
            Claim(
                "time that import celery_argsize adds to import celery", times["import celery"].more, IMPORT_MS, "ms"
            ),
            Claim("time that install(app) adds to making the app", times["an app"].more, IMPORT_MS, "ms"),
            Claim("CPU time of celery --help, with compared with without", times["celery --help, CPU"].times, HELP),
        ],
        chart=Chart(
            "Time to start",
            "milliseconds",
            "",
            {
                "without": [(name, statistics.median(both.without) * 1000) for name, both in walls.items()],
                "with": [(name, statistics.median(both.with_us) * 1000) for name, both in walls.items()],
            },
            bars=True,
        ),
        notes=[
            "An app is `celery.Celery()`, in the column *with* also `install(app)`, as in a process that sends tasks.",
            "The target for `celery --help` uses CPU time, because its wall time alone varies by more than 3 %.",
        ],
    )


if __name__ == "__main__":
    sys.exit(run(answer))
