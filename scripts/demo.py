#!/usr/bin/env python3
"""Shows celery_argsize at work: starts a Redis and a worker, runs a few hundred tasks, and prints the report.

``make demo`` runs it. It uses the app in examples/music_library, a free port and a temporary folder. When it ends, for
whatever reason, it stops and removes everything that it started. If something fails, it copies the worker's log to
``build/demo/``.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click
import redis_server

import celery_argsize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

ROOT: Final = Path(__file__).resolve().parent.parent
EXAMPLES: Final = ROOT / "examples"
KEPT_LOGS: Final = ROOT / "build" / "demo"

#: What the tasks scan: folder, number of albums, files in a batch. The batch of the first is far over Celery's limit.
FOLDERS: Final = (
    ("/music/Archive", 66, 600),
    ("/music/Nouveautés", 40, 6),
    ("/music/Vinyl", 70, 12),
    ("/music/Ελλάδα", 30, 4),
    ("/music/古典", 24, 32),
)
#: Seconds that the worker may take to answer.
READY_TIMEOUT: Final = 30.0
#: Seconds that may pass without a task being run.
STALL_TIMEOUT: Final = 20.0
#: Seconds that the worker may take to stop.
STOP_TIMEOUT: Final = 20.0
#: Seconds between two reads of the figures.
POLL: Final = 0.1
#: Environment variables that could change the demo's Celery settings. They are removed.
CELERY_VARIABLES: Final = re.compile(r"CELERY.*|APP|BROKER_URL|LOADER|RESULT_BACKEND|WORKDIR")

INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

MONITOR: Final = "[CELERY MONITOR] "
SHUTDOWN: Final = "[WORKER SHUTDOWN] "
MONITOR_LINES: Final = 5

NEXT: Final = """\
In your own project:
  app = Celery(...)
  celery_argsize.install(app)          # add this line, then restart your workers
  celery -A proj argsize report        # at any time, on any machine that reaches their Redis
Here:
  make test                            # run the tests, with real workers and a real Redis
  examples/music_library/app.py        # read the app that just ran"""


class DemoError(Exception):
    """The demo cannot go on. The message says why, and where to look."""


def main() -> int:
    """Run the demo and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may not know the characters that we print
    for number in INTERRUPTS:
        signal.signal(number, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="celery-argsize-demo-") as name, redis_server.run(Path(name)) as url:
            _show(Path(name), url)
    except (DemoError, redis_server.RedisServerError, celery_argsize.ArgsizeError) as exc:
        click.echo(f"Error: {exc}", err=True)
        return 1
    except KeyboardInterrupt:
        click.echo("\nStopped; nothing was left running.", err=True)
        return 130
    return 0


def _interrupt(*_: object) -> None:
    """Stop the demo. A second Ctrl-C is ignored, so that it does not interrupt the cleanup."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _show(folder: Path, url: str) -> None:
    app, total = _load(url)
    log = folder / "worker.log"
    _say(f"Redis is at {url}. Starting a worker with 2 processes on examples/music_library ...")
    with _worker(app, log) as worker:
        _run_tasks(app, total, worker, log)
        _say("Stopping the worker (SIGTERM) ...")
        _stop(worker, log)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    _say("From its log: a large task, logged before it ran", _largest_block(lines, log))
    _say("From its log: this worker's figures, logged when it stopped", _shutdown_lines(lines, log))
    _say("From Redis: the figures of all workers (scripts/check_celery_metrics.py)")
    _check(url)
    _compare(app, total, log)
    _say("What to try next", NEXT.splitlines())


def _say(title: str, lines: list[str] | None = None) -> None:
    click.secho(f"\n{title}" if lines is None else f"\n{title}:\n", bold=True)
    for line in lines or ():
        click.echo(f"  {line}")


def _load(url: str) -> tuple[Celery, int]:
    """Import the example app with the Redis at *url*. Returns it, and the number of tasks that the demo will run."""
    for name in filter(CELERY_VARIABLES.fullmatch, list(os.environ)):
        del os.environ[name]
    os.environ.update(
        CELERY_BROKER_URL=url,
        CELERY_RESULT_BACKEND=url,
        CELERY_ARGSIZE_FLUSH_INTERVAL="0.2",  # for a smooth progress bar; the default is 1 second
        PYTHONUTF8="1",
    )
    sys.path.insert(0, str(EXAMPLES))
    count_runs = importlib.import_module("music_library.catalog").count_runs
    return importlib.import_module("music_library.app").app, sum(count_runs(*folder) for folder in FOLDERS)


# -- the worker ----------------------------------------------------------------------------------------------------


@contextmanager
def _worker(app: Celery, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a prefork worker that answers. At the end it and its children are stopped, whatever happened."""
    command = [sys.executable, "-m", "celery", "-A", "music_library.app", "worker"]
    command += ["--pool", "prefork", "--concurrency", "2", "--hostname", "music@%h", "--loglevel", "INFO"]
    with log.open("wb") as output:
        worker = subprocess.Popen(  # noqa: S603 - our own app
            command, cwd=EXAMPLES, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_until_ready(app, worker, log)
        yield worker
    finally:
        _end(worker)


def _wait_until_ready(app: Celery, worker: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT
    while not app.control.ping(timeout=0.5, limit=1):
        _check_alive(worker, log)
        if time.monotonic() > deadline:
            _fail(f"the worker does not answer after {READY_TIMEOUT:g} s", log)


def _check_alive(worker: subprocess.Popen[bytes], log: Path) -> None:
    if worker.poll() is not None:
        _fail(f"the worker ended by itself, with code {worker.returncode}", log)


def _stop(worker: subprocess.Popen[bytes], log: Path) -> None:
    worker.terminate()
    with suppress(subprocess.TimeoutExpired):
        worker.wait(STOP_TIMEOUT)
    if worker.returncode is None:
        _fail(f"the worker does not end within {STOP_TIMEOUT:g} s of SIGTERM", log)
    if worker.returncode:
        _fail(f"the worker ended with code {worker.returncode}", log)


def _end(worker: subprocess.Popen[bytes]) -> None:
    """Stop the worker: first with SIGTERM, then kill what is left of it and its children."""
    try:
        worker.terminate()
        worker.wait(STOP_TIMEOUT / 4)
    except subprocess.TimeoutExpired:
        pass  # it is killed below
    finally:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)  # start_new_session gave it a process group of its own
        worker.wait()


def _fail(problem: str, log: Path) -> NoReturn:
    """Keep a copy of *log*, and raise an error with the *problem* and the last lines of the log."""
    KEPT_LOGS.mkdir(parents=True, exist_ok=True)
    copy = Path(shutil.copy(log, KEPT_LOGS)).relative_to(ROOT)
    last_lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
    raise DemoError("\n  ".join([f"{problem}. Its log was copied to {copy}. It ends with:", *last_lines]))


# -- the tasks -----------------------------------------------------------------------------------------------------


def _run_tasks(app: Celery, total: int, worker: subprocess.Popen[bytes], log: Path) -> None:
    """Send the scans, and wait until *total* tasks have run: the scans, and the tasks that they send."""
    for folder, albums, batch_size in FOLDERS:
        app.send_task("scan", args=(folder, albums), kwargs={"batch_size": batch_size})
    seen, moved = 0, time.monotonic()
    with click.progressbar(length=total, label=f"Running {total} tasks", show_pos=True) as bar:
        while seen < total:
            time.sleep(POLL)
            _check_alive(worker, log)
            now = celery_argsize.get_size_summary(app).total_tasks
            if now > seen:
                bar.update(now - seen)
                seen, moved = now, time.monotonic()
            elif time.monotonic() > moved + STALL_TIMEOUT:
                _fail(f"only {seen} of {total} tasks ran, and none in the last {STALL_TIMEOUT:g} s", log)


# -- what is printed -----------------------------------------------------------------------------------------------


def _largest_block(lines: list[str], log: Path) -> list[str]:
    """The log lines about the task with the largest args."""
    starts = [at for at, line in enumerate(lines) if f"{MONITOR}Task: " in line]
    blocks = [[_from(MONITOR, line) for line in lines[at : at + MONITOR_LINES]] for at in starts]
    if not blocks:
        _fail("the worker logged no large task", log)
    return max(blocks, key=lambda block: int("0" + re.sub(r"\D", "", block[2])))


def _shutdown_lines(lines: list[str], log: Path) -> list[str]:
    report = [_from(SHUTDOWN, line) for line in lines if SHUTDOWN in line]
    if not report:
        _fail("the worker ended without its report", log)
    return report


def _from(prefix: str, line: str) -> str:
    """*line* from *prefix* on, without time and level in front."""
    return line[max(0, line.find(prefix)) :]


def _check(url: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "check_celery_metrics.py"), "--redis-url", url]
    done = subprocess.run(command, capture_output=True, check=False, encoding="utf-8", timeout=30)  # noqa: S603 - ours
    click.echo("\n" + "\n".join(f"  {line}".rstrip() for line in (done.stdout + done.stderr).splitlines()))
    if done.returncode:
        message = f"scripts/check_celery_metrics.py ended with code {done.returncode}"
        raise DemoError(message)


def _compare(app: Celery, total: int, log: Path) -> None:
    """Check that as many tasks were counted as the example says that it sends."""
    counted = celery_argsize.get_size_summary(app).total_tasks
    if counted != total:
        _fail(f"{total} tasks were sent, {counted} were counted", log)


if __name__ == "__main__":
    sys.exit(main())
