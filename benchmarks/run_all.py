"""Runs all benchmarks and writes RESULTS.md and the charts: ``make bench``, about a quarter of an hour.

    python benchmarks/run_all.py [--smoke] [--out FOLDER] [--skip NAME] [NAME ...]

Each benchmark runs in a process of its own. The files go to this folder, or to FOLDER. With NAMEs, only those
benchmarks run, and files are written only if ``--out`` says where.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import harness

if TYPE_CHECKING:
    from harness import Answer

#: The benchmarks in the order of RESULTS.md. Each is a module in this folder.
BENCHMARKS: Final = (
    "instructions",
    "task_time",
    "measure_time",
    "memory",
    "worker",
    "redis_cost",
    "fleet",
    "growth",
    "startup",
    "publish",
)


def measured(name: str, folder: Path, *, smoke: bool) -> Answer:
    """Run the benchmark *name*, and return its results.

    Raises:
        SystemExit: the benchmark failed.
    """
    file = folder / f"{name}.json"
    command = [sys.executable, str(harness.HERE / f"{name}.py"), "--json", str(file), *["--smoke"] * smoke]
    code = subprocess.run(command, check=False).returncode  # noqa: S603 - our own
    if not file.exists():
        message = f"{name} failed, with exit code {code}"
        raise SystemExit(message)
    return harness.load(file)


def page(answers: dict[str, Answer], seconds: float) -> str:
    """The text of RESULTS.md; *seconds* is how long all benchmarks took."""
    claims = [(name, claim) for name, answer in answers.items() for claim in answer.claims]
    held = sum(claim.holds for _, claim in claims)
    parts = [name for answer in answers.values() for name in answer.versions]
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Everything in one table ran side by side, so compare figures within a table. The",
        "absolute figures are those of this machine. *a ± b* is the median and the median absolute deviation.",
        "[docs/performance.md](../docs/performance.md) explains the results.",
        "",
        f"- Machine: {harness.machine()}",
        f"- Versions: {harness.versions(['celery-argsize', 'celery', 'kombu', 'redis', 'orjson', *parts])}",
        f"- {held} of {len(claims)} targets are met (✓), the others are missed (✗).",
        f"- All of it took {seconds / 60:.1f} minutes.",
        "",
    ]
    for number, (name, answer) in enumerate(answers.items(), 1):
        lines += [f"## {number}. {answer.title}", "", f"`python benchmarks/{name}.py`", "", *answer.table(), ""]
        lines += [*(f"- {'✓' if claim.holds else '✗'} {claim}" for claim in answer.claims), ""]
        lines += [*answer.notes, ""] if answer.notes else []
        lines += [f"![{answer.chart.title}](charts/{name}.svg)", ""] if answer.chart.series else []
    return "\n".join(lines)


def main() -> int:
    """Run the benchmarks, write the files, and return the exit code: 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="use small counts, only to see that all of it works")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write RESULTS.md and charts/")
    parser.add_argument("--skip", choices=BENCHMARKS, metavar="NAME", help="a benchmark that does not run")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *BENCHMARKS], help=", ".join(BENCHMARKS))
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        names = [name for name in options.names or BENCHMARKS if name != options.skip]
        answers = {name: measured(name, Path(folder), smoke=options.smoke) for name in names}
    out: Path | None = options.out or (None if options.names or options.smoke else harness.HERE)
    if out is not None:
        from charts import draw  # noqa: PLC0415 - needs matplotlib, which is only needed to draw

        out.mkdir(parents=True, exist_ok=True)
        (out / "RESULTS.md").write_text(page(answers, time.perf_counter() - began), encoding="utf-8")
        for name, answer in answers.items():
            if answer.chart.series:
                draw(answer.chart, out / "charts" / f"{name}.svg")
    missed = [f"{name}: {claim}" for name, answer in answers.items() for claim in answer.claims if not claim.holds]
    if options.smoke:
        print("\nAll benchmarks work. These figures mean nothing.")
        return 0
    print(f"\nTargets missed: {len(missed)}", *missed, sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
