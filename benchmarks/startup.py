"""What celery_argsize adds to the time that an import, an app, ``celery --help`` and a worker take to start.

    python benchmarks/startup.py

Two virtual environments have the same packages, but only one of them has ours. Each start is a fresh interpreter, with
us and without by turns, after one of each that does not count. CPU is the user and system time of the process. A worker
has started when it sends ``worker_ready``; a Redis of its own is the broker. It does not look for other workers
(mingle), which would take a second.
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

#: Milliseconds that we may add to an import, and how often as long ``celery --help`` may take.
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
#: What is started: words for Python, without us and with.
STARTS: Final = {
    "import celery": (["-c", "import celery"], ["-c", "import celery, celery_argsize"]),
    "an app": tuple(["-c", f"import celery; app = celery.Celery(); {then}"] for then in ("", INSTALL)),
    "celery --help": (["-m", "celery", "--help"],) * 2,
}
#: Starts of each kind: more where a smaller difference is to be seen.
ROUNDS: Final = {"import celery": 25, "an app": 15, "celery --help": 35, "a worker": 8}
WORKER: Final = ["-m", "celery", "-A", "startup_app", "worker", "-P", "prefork", "-c", "2", "--without-mingle"]


class Took(NamedTuple):
    """Seconds of one start."""

    wall: float
    cpu: float


class Environment:
    """A virtual environment in *folder* with all that is installed here; with us as from a wheel, or without."""

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
            _put_us(packages)
        (folder / "startup_app.py").write_text(APP.format(INSTALL if with_us else ""), encoding="utf-8")
        self.start(["-m", "celery", "--help"])
        if ("argsize" in self.log) is not with_us:
            message = f"celery --help is not as it should be:\n{self.log}"
            raise RuntimeError(message)

    @property
    def log(self) -> str:
        """What the newest start printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _spawn(self, words: list[str], *files: int, **variables: str) -> subprocess.Popen[bytes]:
        # Not where there is more to import; and with no variables that Python or Celery go by.
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        with self._log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - our own
                [self._folder / "bin" / "python", *words],
                cwd=self._folder,
                env={**kept, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=files,
                start_new_session=True,
            )

    def start(self, words: list[str]) -> Took:
        """Run Python with *words*, to its end."""
        began = time.perf_counter()
        process = self._spawn(words)
        _, status, used = os.wait4(process.pid, 0)
        took = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(self.log)
        return Took(took, used.ru_utime + used.ru_stime)

    def start_worker(self, broker: str) -> Took:
        """Until it is ready; it is ended then, and its CPU time not told."""
        readable, writable = os.pipe()
        began = time.perf_counter()
        worker = self._spawn(WORKER, writable, BROKER=broker, READY=str(writable))
        try:
            os.close(writable)
            ready = select.select([readable], [], [], PATIENCE)[0] and os.read(readable, 1)
            took = time.perf_counter() - began
        finally:
            os.close(readable)
            os.killpg(worker.pid, signal.SIGKILL)  # its children too: there is nothing left for them to do
            worker.wait()
        if not ready:
            raise RuntimeError(self.log)
        return Took(took, 0.0)


def _put_us(packages: Path) -> None:
    (packages / "celery_argsize").symlink_to(Path(celery_argsize.__file__).parent)
    installed = metadata.distribution("celery-argsize")
    info = packages / f"celery_argsize-{installed.version}.dist-info"
    info.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (info / name).write_text(installed.read_text(name) or "", encoding="utf-8")


# -- what is told -------------------------------------------------------------------------------------------------


class Both(NamedTuple):
    """Seconds without us and with us, one of each a round."""

    without: list[float]
    with_us: list[float]

    @property
    def more(self) -> float:
        """Milliseconds that it takes longer with us."""
        return statistics.median(after - before for before, after in zip(*self, strict=True)) * 1000

    @property
    def times(self) -> float:
        """How often as long it takes with us."""
        return ratio(self.with_us, self.without)

    def row(self, name: str) -> list[str]:
        """For the table."""
        return [name, spread(self.without, 1000), spread(self.with_us, 1000), f"{self.more:+.1f}", f"{self.times:.3f}"]


def by_turns(rounds: int, without: Callable[[], Took], with_us: Callable[[], Took]) -> tuple[Both, Both]:
    """Wall and CPU time of both, after one of each that does not count; each comes first in every other round."""
    without(), with_us()
    found = []
    for number in range(rounds):
        if number % 2:
            after, before = with_us(), without()
        else:
            before, after = without(), with_us()
        found.append((before, after))
    return (
        Both([before.wall for before, _ in found], [after.wall for _, after in found]),
        Both([before.cpu for before, _ in found], [after.cpu for _, after in found]),
    )


def measured(folder: Path, rounds: dict[str, int]) -> dict[str, Both]:
    """All of it, by what is started."""
    without, with_us = (Environment(folder / name, with_us=name == "with") for name in ("without", "with"))
    found: dict[str, Both] = {}
    for what, (words, our_words) in STARTS.items():
        found[what], found[f"{what}, CPU"] = by_turns(
            rounds[what], partial(without.start, words), partial(with_us.start, our_words)
        )
    with redis_server.run(folder) as broker:
        starts = partial(without.start_worker, broker), partial(with_us.start_worker, broker)
        found["a worker"], _ = by_turns(rounds["a worker"], *starts)
    return found


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - as the frame calls it
    """Measure, and tell."""
    with tempfile.TemporaryDirectory() as name:
        found = measured(Path(name), dict.fromkeys(ROUNDS, 1) if smoke else ROUNDS)
    walls = {what: both for what, both in found.items() if not what.endswith("CPU")}
    return Answer(
        title="How much longer does a start take with celery_argsize?",
        head=["milliseconds", "without", "with", "more", "times"],
        rows=[both.row(what) for what, both in found.items()],
        claims=[
            Claim("import celery_argsize, over celery's own", found["import celery"].more, IMPORT_MS, "ms"),
            Claim("install(app), over making the app", found["an app"].more, IMPORT_MS, "ms"),
            Claim("celery --help, CPU time with us by without", found["celery --help, CPU"].times, HELP),
        ],
        chart=Chart(
            "Time to start",
            "milliseconds",
            "",
            {
                "without": [(what, statistics.median(both.without) * 1000) for what, both in walls.items()],
                "with": [(what, statistics.median(both.with_us) * 1000) for what, both in walls.items()],
            },
            bars=True,
        ),
        notes=[
            "An app is `celery.Celery()`, with us and `install(app)`: what a producer pays, too.",
            "The target for `celery --help` is held against CPU time, as the other varies by more than 3 % by itself.",
        ],
    )


if __name__ == "__main__":
    sys.exit(run(answer))
