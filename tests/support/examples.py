"""An example as its user runs it: ``honcho start`` in its folder, on ports of its own, stopped with nothing left.

``running_example("social_sync")`` is all a test needs. An example's ``.env`` names its ports ``…_PORT``; each of them
is replaced by a free one, wherever in that file its number stands. What else a test sets comes after it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import uuid
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest

import celery_argsize
from support.servers import BIN, ROOT, free_port, stop, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FOLDER = ROOT / "examples"
#: Of a person's own shell, what would reach the example.
FOREIGN = ("CELERY", "REDIS_", "REQUIRE_REDIS_", "DJANGO_", "PYTHONPATH", "PORT")
#: ``celery inspect``, but for waiting on when all have answered.
INSPECT = """
import json, sys
from celery.app.utils import find_app

name, what, workers = sys.argv[1:]
inspect = find_app(name).control.inspect(timeout=10, limit=int(workers))
print(json.dumps(getattr(inspect, what)(), default=repr))
"""
#: In the environment of all that an example starts, so that it is found wherever it went.
MARK = "TEST_EXAMPLE"


class Example:
    """An example that runs. ``env`` is what its ``.env`` says here; commands run in its folder with it."""

    def __init__(self, name: str, work: Path, **settings: str) -> None:
        self.folder = FOLDER / name
        self.env_file = work / f"{name}.env"
        self.log_file = work / f"{name}.log"
        self.mark = uuid.uuid4().hex
        text = _on_free_ports((self.folder / ".env").read_text(encoding="utf-8"))
        self.env = {**_variables(text), **settings}
        self.env_file.write_text("".join(f"{key}={shlex.quote(value)}\n" for key, value in self.env.items()))
        shell = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
        self.shell = {**shell, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", MARK: self.mark}
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [BIN / "honcho", "start", "--no-colour", "--env", self.env_file],
                cwd=self.folder,
                env=self.shell,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """What all processes wrote so far, each line after the process's name."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def procfile(self) -> dict[str, str]:
        """The command of each process, by its name in the Procfile."""
        text = (self.folder / "Procfile").read_text(encoding="utf-8")
        return dict(re.findall(r"^([\w-]+):\s*(.+)$", text, re.MULTILINE))

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.env['REDIS_PORT']}/0"

    @property
    def web_url(self) -> str:
        return f"http://127.0.0.1:{self.env['WEB_PORT']}"

    def run(self, *command: str, timeout: float = 60) -> str:
        """What a command prints that a person types in a second terminal, by ``honcho run``; it must succeed."""
        words = [str(BIN / "honcho"), "run", "--env", str(self.env_file), *command]
        done = subprocess.run(
            words, cwd=self.folder, env=self.shell, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    @contextmanager
    def one_more(self, process: str, **settings: str) -> Iterator[None]:
        """One more *process* of the Procfile, with *settings* in its environment."""
        command = ["sh", "-c", f"exec {self.procfile[process]}"]
        with self.log_file.open("ab") as log:
            more = subprocess.Popen(
                command, cwd=self.folder, env={**self.shell, **self.env, **settings}, stdout=log, stderr=log
            )
        try:
            yield
        finally:
            stop(more)

    def inspect(self, app: str, what: str) -> dict[str, Any]:
        """What each worker says that ``celery inspect`` asks, by the part of its name before the ``@``."""
        workers = sum(" worker" in command for command in self.procfile.values())
        replies = json.loads(self.run("python", "-c", INSPECT, app, what, str(workers)))
        return {name.partition("@")[0]: reply for name, reply in replies.items()}

    def runs(self) -> dict[str, int]:
        """How often each task was measured so far."""
        summary = celery_argsize.get_size_summary(redis_url=self.redis_url)
        return {task.name: task.count for task in summary.tasks}

    def get(self, path: str) -> tuple[int, Any]:
        """The status and the body of a page: what its JSON says, or its text."""
        return _ask(Request(self.web_url + path))  # noqa: S310 - our own, over http

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """The same, having sent *body* as JSON."""
        headers = {"Content-Type": "application/json"}
        return _ask(Request(self.web_url + path, json.dumps(body).encode(), headers))  # noqa: S310 - see get

    def processes(self) -> list[psutil.Process]:
        """Every process that came of it and lives, wherever its parent went."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return bool(process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            return False

    def wait_ready(self, timeout: float = 60) -> None:
        """Wait until each worker of the Procfile says so, and the web process answers, where there is one."""
        wait_until(self._is_ready, timeout=timeout, what=f"{self.folder.name}: ready")

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"it ended by itself, with code {self.process.returncode}:\n{self.log}")
        workers = sum(" worker" in command for command in self.procfile.values())
        return self.log.count(" ready.") >= workers and ("WEB_PORT" not in self.env or self._web_listens())

    def _web_listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", int(self.env["WEB_PORT"])), timeout=1):
            return True
        return False

    def stop(self, number: int = signal.SIGINT, timeout: float = 30) -> int:
        """Stop it as Ctrl-C does; its exit code. Fails if a process is left, and ends that."""
        try:
            self.process.send_signal(number)
            code = self.process.wait(timeout)
        finally:
            left = self.processes()
            said = [f"{process.pid}: {shlex.join(process.cmdline())}" for process in left if process.is_running()]
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        assert not said, f"processes were left: {said}\n{self.log}"
        return code


@contextmanager
def running_example(name: str, work: Path, **settings: str) -> Iterator[Example]:
    """Start ``examples/NAME`` with *settings* in its environment, logging to *work*; stop it whatever happens."""
    example = Example(name, work, **settings)
    try:
        example.wait_ready()
        yield example
    finally:
        if example.process.poll() is None or example.processes():
            example.stop()


@contextmanager
def shared_example(name: str, work: Path, **settings: str) -> Iterator[Callable[[], Example]]:
    """Give what gives a running example to each test of a module: it is started again only where a test stopped it."""
    with ExitStack() as stack:
        started: list[Example] = []

        def running() -> Example:
            if not started or started[-1].process.poll() is not None:
                started.append(stack.enter_context(running_example(name, work, **settings)))
            return started[-1]

        yield running


def _variables(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def _on_free_ports(text: str) -> str:
    ports = {port: str(free_port()) for name, port in _variables(text).items() if name.endswith("_PORT")}
    return re.sub(r"\d+", lambda found: ports.get(found[0], found[0]), text)


def _ask(request: Request) -> tuple[int, Any]:
    try:
        with urlopen(request, timeout=30) as response:  # noqa: S310 - see get
            status, body = response.status, response.read().decode()
    except HTTPError as error:
        with error:
            status, body = error.code, error.read().decode()
    with suppress(ValueError):
        return status, json.loads(body)
    return status, body
