"""Runs an example as a user does, with ``honcho start`` in its folder, but on free ports.

Use ``running_example("social_sync", folder)``. It checks that the example leaves no process when it is stopped. Ports
are the variables ``…_PORT`` in the example's ``.env``. Each is replaced by a free port everywhere in that file.
Settings of the test override those of the file.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
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
#: Prefixes of environment variables that would change the example. They are removed.
REMOVED = ("CELERY", "REDIS_", "REQUIRE_REDIS_", "DJANGO_", "PYTHONPATH", "PORT")
#: ``celery inspect``, but it stops waiting when all workers have answered.
INSPECT = """
import json, sys
from celery.app.utils import find_app

name, what, workers = sys.argv[1:]
inspect = find_app(name).control.inspect(timeout=10, limit=int(workers))
print(json.dumps(getattr(inspect, what)(), default=repr))
"""
#: ``honcho``, but it kills what has not ended after 30 s, not 5: on a busy machine, Redis and workers may take longer.
HONCHO = "import honcho.manager as m; m.KILL_WAIT = 30; from honcho.command import main; main()"
#: An environment variable by which all processes of an example are found, whatever their parent is.
MARK = "TEST_EXAMPLE"


class Example:
    """A running example. ``env`` are the variables of its ``.env`` with free ports; commands run with them."""

    def __init__(self, name: str, work: Path, **settings: str) -> None:
        self.folder = FOLDER / name
        self.env_file = work / f"{name}.env"
        self.log_file = work / f"{name}.log"
        self.mark = uuid.uuid4().hex
        text = _on_free_ports((self.folder / ".env").read_text(encoding="utf-8"))
        self.env = {**_variables(text), **settings}
        self.env_file.write_text("".join(f"{key}={shlex.quote(value)}\n" for key, value in self.env.items()))
        shell = {key: value for key, value in os.environ.items() if not key.startswith(REMOVED)}
        self.shell = {**shell, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", MARK: self.mark}
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", HONCHO, "start", "--no-colour", "--env", self.env_file],
                cwd=self.folder,
                env=self.shell,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """The output of all processes so far. Each line begins with the name of the process."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def procfile(self) -> dict[str, str]:
        """The Procfile: process name → command."""
        text = (self.folder / "Procfile").read_text(encoding="utf-8")
        return dict(re.findall(r"^([\w-]+):\s*(.+)$", text, re.MULTILINE))

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.env['REDIS_PORT']}/0"

    @property
    def web_url(self) -> str:
        return f"http://127.0.0.1:{self.env['WEB_PORT']}"

    def run(self, *command: str, timeout: float = 60) -> str:
        """Run a command with ``honcho run``, as a person does in a second terminal. Returns its stdout.

        The command must succeed.
        """
        words = [str(BIN / "honcho"), "run", "--env", str(self.env_file), *command]
        done = subprocess.run(
            words, cwd=self.folder, env=self.shell, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    @contextmanager
    def one_more(self, process: str, **settings: str) -> Iterator[None]:
        """Run one more *process* of the Procfile with *settings* in its environment, during a ``with`` block."""
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
        """The replies of all workers to ``celery inspect``. The part of a worker's name before ``@`` → its reply."""
        workers = sum(" worker" in command for command in self.procfile.values())
        replies = json.loads(self.run("python", "-c", INSPECT, app, what, str(workers)))
        return {name.partition("@")[0]: reply for name, reply in replies.items()}

    def runs(self) -> dict[str, int]:
        """Task name → number of runs that were measured so far."""
        summary = celery_argsize.get_size_summary(redis_url=self.redis_url)
        return {task.name: task.count for task in summary.tasks}

    def get(self, path: str) -> tuple[int, Any]:
        """Get a page. Returns the status and the body, from JSON if it is JSON."""
        return _ask(Request(self.web_url + path))  # noqa: S310 - our own, over http

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Post *body* as JSON to a page. Returns the status and the body, from JSON if it is JSON."""
        headers = {"Content-Type": "application/json"}
        return _ask(Request(self.web_url + path, json.dumps(body).encode(), headers))  # noqa: S310 - see get

    def processes(self) -> list[psutil.Process]:
        """All living processes of this example, also those whose parent has ended."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return bool(process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            return False

    def wait_ready(self, timeout: float = 120) -> None:
        """Wait until all workers say that they are ready, and the web process listens, if there is one."""
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

    def stop(self, number: int = signal.SIGINT, timeout: float = 60) -> int:
        """Stop it with SIGINT as Ctrl-C does, or another signal. Returns the exit code.

        If a process is left, kill it and fail.
        """
        try:
            self.process.send_signal(number)
            code = self.process.wait(timeout)
        finally:
            left = self.processes()
            commands = [f"{process.pid}: {shlex.join(process.cmdline())}" for process in left if process.is_running()]
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        assert not commands, f"processes were left: {commands}\n{self.log}"
        return code


@contextmanager
def running_example(name: str, work: Path, **settings: str) -> Iterator[Example]:
    """Run ``examples/NAME`` during a ``with`` block, with *settings* in its environment and its log in *work*."""
    example = Example(name, work, **settings)
    try:
        example.wait_ready()
        yield example
    finally:
        if example.process.poll() is None or example.processes():
            example.stop()


@contextmanager
def shared_example(name: str, work: Path, **settings: str) -> Iterator[Callable[[], Example]]:
    """Share an example among the tests of a module. Yields a function that returns the running example.

    The function starts the example again if a test has stopped it.
    """
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
    return re.sub(r"\d+", lambda number: ports.get(number[0], number[0]), text)


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
