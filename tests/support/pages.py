"""The report as a page, for tests: figures to show, and a real Chromium to look at it with."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery_argsize import Measurement, Part, Size
from celery_argsize.advice.adviser import advise
from celery_argsize.figures.counters import Figures, Tally
from celery_argsize.figures.summary import summarize
from celery_argsize.measuring.repr_shape import Shape
from celery_argsize.settings import DEFAULT_BUCKETS
from celery_argsize.views.page import report_html
from support.servers import missing
from support.simulate import RULES, fresh_app, publish, receive

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery_argsize.figures.counters import Rules
    from celery_argsize.figures.summary import Summary
    from support.simulate import Call

BROWSER = Path(__file__).parent / "browser"
NOW = 1_800_000_000.0
DAY = 86_400.0


def songs(count: int) -> list[Any]:
    return [{"id": n, "title": f"Song {n}", "tags": ["rock"]} for n in range(count)]


#: A few tasks of all kinds: cut by size, by depth, whole, empty.
LIBRARY: Mapping[str, list[Call]] = {
    "library.extract": [((["/music/a.flac"] * n,), {"library": 7}) for n in (3, 9, 20, 40, 80, 900) for _ in range(9)],
    "library.insert": [((), {"tracks": songs(n)}) for n in (4, 30, 60, 90) for _ in range(11)],
    "library.scan": [((f"/srv/{n}",), {"deep": True}) for n in range(5)],
    "playlists.export": [((list(range(n)),), {}) for n in (900, 4000, 9000, 40_000) for _ in range(8)],
    "mail.welcome": [((n, "en"), {}) for n in range(1200)],
}


def seen(
    calls: Mapping[str, Iterable[Call]],
    app_name: str = "music",
    *,
    limit: int = 1024,
    rules: Rules = RULES,
    **custom: str,
) -> Summary:
    """The summary after *calls*, in two days, of the app *app_name*; *custom*: reprs of the caller (``argsrepr=``).

    *limit* is the app's for args; *rules* are those of its workers.
    """
    tally, app = Tally(2000), fresh_app()
    app.amqp.argsrepr_maxsize = limit
    for task, several in calls.items():
        for call in several:
            tally.add(receive(task, publish(app, task, call, **custom)), rules)
    return summarize(Figures(app_name, tally.tasks, NOW - 2 * DAY, NOW - 5))


def page_of(summary: Summary, **options: Any) -> str:
    broker = options.pop("broker", "redis")
    where = {"redis_url": "redis://localhost:6379/0", "bounds": DEFAULT_BUCKETS}
    given = {**where, "limits": None, "now": NOW, **options}
    return report_html(summary, advise(summary, broker, "5.7.0"), **given)


def many(count: int = 1000) -> str:
    """The page of that many tasks, each with two histograms of many bars."""
    rng, tally = random.Random(3), Tally(count)

    def part() -> Part:
        size = int(10 * 2 ** rng.uniform(0, 14))
        if size < 900:
            return Part(Size(size, size), "intact", size + 2)
        shape = Shape(size + size // 8, rng.choice((2, 3, 5)), size, 0, 1024, 0, size // 20, 9, 9, 50)
        return Part(Size(size, size), "size", 1024, 0, 1024, shape)

    for number in range(count):
        name = f"package_{number % 37}.module_{number % 11}.tasks.number_{number}"
        for _ in range(35):
            tally.add(Measurement(name, f"0b1{number:05}-6df7-4d3e-99b7-3c19b03bfbfe", part(), part(), NOW), RULES)
    return page_of(summarize(Figures("many", tally.tasks, NOW - 86_400, NOW)))


class Browser:
    """A Chromium, driven by tests/support/browser/driver.js."""

    def __init__(self) -> None:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        node = shutil.which("node")
        if chromium is None or node is None:
            missing("chromium or node")
        self.home = tempfile.mkdtemp(prefix="argsize-browser-")
        self.process = subprocess.Popen(
            [str(node), str(BROWSER / "driver.js"), str(_modules()), str(chromium)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "HOME": self.home},
        )
        self.version = self._read()["version"]

    def _read(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline() or '{"error": "the driver has ended", "version": ""}')

    def __call__(self, check: str, file: Path, **options: Any) -> dict[str, Any]:
        """The answer to one check (see driver.js) on *file*: its result, what the console said, what was asked for."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"check": check, "file": str(file), **options}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = self._read()
        assert "error" not in answer, answer["error"]
        return answer

    def close(self) -> None:
        self.process.communicate(timeout=60)
        shutil.rmtree(self.home, ignore_errors=True)


def _modules() -> Path:
    """What package.json names, installed once below the virtual environment."""
    wanted = BROWSER / "package.json"
    folder = Path(sys.prefix) / "browser" / hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]
    if not folder.exists():
        npm = shutil.which("npm")
        if npm is None:
            missing("npm")
        folder.parent.mkdir(exist_ok=True)
        # made elsewhere and then moved: other test processes may do the same
        new = Path(tempfile.mkdtemp(dir=folder.parent))
        shutil.copy(wanted, new)
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error")
        if subprocess.run([str(npm), "install", *options], cwd=new, timeout=120, check=False).returncode:
            shutil.rmtree(new)
            missing("what tests/support/browser/package.json names (npm install)")
        try:
            new.rename(folder)
        except OSError:
            shutil.rmtree(new)  # another was first
    return folder
