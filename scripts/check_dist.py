#!/usr/bin/env python3
"""Builds sdist and wheel into dist/, and tries each in a fresh virtual environment. ``make dist`` starts it.

The sdist is also installed as on a machine without a compiler: the pure-Python walk must run then. Needs the package
``build``. Exit codes: 0 all is well, 1 something is not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
DIST: Final = ROOT / "dist"
CONSTRAINTS: Final = ROOT / "constraints.txt"
#: The compiler of a machine that has none.
NO_COMPILER: Final = {"CC": "/bin/false"}
#: File names in both archives, as patterns, each with how many there are at least.
DATA: Final = {"celery_argsize/py.typed": 1, "celery_argsize/stores/*.lua": 4, "celery_argsize/views/templates/*": 4}
C_FILE: Final = "celery_argsize/measuring/_compiled.c"
MODULE: Final = "celery_argsize/measuring/_compiled.*.so"

#: Runs in the fresh environment, in a folder without our sources.
PROGRAM: Final = """
import celery_argsize
from celery_argsize.measuring.walk import compiled

size = celery_argsize.measure_json_size([1, "a", {"b": None}])
assert size == len('[1,"a",{"b":null}]'), size
assert "site-packages" in celery_argsize.__file__, celery_argsize.__file__
print("pure" if compiled is None else "compiled")
"""


def build() -> tuple[Path, Path]:
    """Build both into an empty dist/. The wheel is built from the sdist. Returns their paths."""
    shutil.rmtree(DIST, ignore_errors=True)
    _call(sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT))
    (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    return sdist, wheel


def misplaced(sdist: Path, wheel: Path) -> list[str]:
    """What one of the archives lacks, or has too much."""
    with tarfile.open(sdist) as archive:
        sources = [name.partition("/")[2] for name in archive.getnames()]
    with zipfile.ZipFile(wheel) as packed:
        built = packed.namelist()
    found = [
        f"{archive.name} has {have} of {least} files {pattern}"
        for archive, names in ((sdist, sources), (wheel, built))
        for pattern, least in DATA.items()
        if (have := _count(names, pattern)) < least
    ]
    if not _count(sources, C_FILE):
        found.append(f"{sdist.name} lacks {C_FILE}")
    if _count(built, "*.c"):
        found.append(f"{wheel.name} has C files")
    return found


def _count(names: list[str], pattern: str) -> int:
    return sum(fnmatch(name, pattern) for name in names)


def has_module(wheel: Path) -> bool:
    """Whether *wheel* has the compiled module, so that this machine has a compiler."""
    with zipfile.ZipFile(wheel) as packed:
        return _count(packed.namelist(), MODULE) > 0


def walk_of(archive: Path, extra: dict[str, str]) -> str:
    """Install *archive* into a fresh environment, with *extra* variables. Returns which walk runs there."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "venv" / "bin" / "python"
        # pip works from here on the new environment, as it takes seconds to install pip itself.
        _call(sys.executable, "-m", "venv", "--without-pip", str(python.parents[1]))
        pip = (sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check")
        install = (*pip, "install", "-qq", "-c", str(CONSTRAINTS))
        # pip keeps the wheel that it built of an sdist, with or without the compiled module.
        _call(*install, "--no-cache-dir", "--no-deps", str(archive), extra=extra)
        _call(*install, "celery-argsize")  # adds what it depends on
        return _call(str(python), "-c", PROGRAM, cwd=Path(folder)).strip()


def _call(*command: str, extra: dict[str, str] | None = None, cwd: Path = ROOT) -> str:
    """Run *command* and return what it printed.

    Raises:
        SystemExit: it failed. Its output is in the message.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "CELERY_ARGSIZE_"))}
    done = subprocess.run(  # noqa: S603 - runs this Python, or one of a virtual environment made here
        command, cwd=cwd, env={**env, **(extra or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> int:
    """Build, look into both archives, and try them side by side. Returns the exit code."""
    sdist, wheel = build()
    faults = misplaced(sdist, wheel)
    compiles = has_module(wheel)
    if not compiles and os.environ.get("CI") == "true":
        faults.append(f"{wheel.name} has no compiled module: CI must have a compiler")
    expected = "compiled" if compiles else "pure"
    tries = [
        ("sdist", sdist, {}, expected),
        ("sdist, no compiler", sdist, NO_COMPILER, "pure"),
        ("wheel", wheel, {}, expected),
    ]
    print(f"{'installed from':20} walk")
    with ThreadPoolExecutor(2) as pool:
        walks = pool.map(walk_of, *zip(*((archive, extra) for _, archive, extra, _ in tries), strict=True))
        for (name, _, _, wanted), walk in zip(tries, walks, strict=True):
            print(f"{name:20} {walk}", flush=True)
            if walk != wanted:
                faults.append(f"{name}: the {walk} walk runs, and the {wanted} one should")
    for fault in faults:
        print(f"WRONG: {fault}")
    print(f"{sdist.name} and {wheel.name} are in {DIST.name}/")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
