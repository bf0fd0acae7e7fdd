"""Runs all benchmarks, and writes RESULTS.md and the charts beside this file: ``make bench``, under ten minutes.

    python benchmarks/run_all.py [--smoke] [--out FOLDER] [NAME ...]

Each runs in a process of its own. With NAMEs, only those run, and nothing is written unless ``--out`` says where.
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

#: The questions, in the order of RESULTS.md: modules beside this one.
BENCHMARKS: Final = (
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
    """Run one benchmark; what it found.

    Raises:
        SystemExit: it failed.
    """
    file = folder / f"{name}.json"
    command = [sys.executable, str(harness.HERE / f"{name}.py"), "--json", str(file), *["--smoke"] * smoke]
    code = subprocess.run(command, check=False).returncode  # noqa: S603 - our own
    if not file.exists():
        message = f"{name} failed, with exit code {code}"
        raise SystemExit(message)
    return harness.load(file)


def page(answers: dict[str, Answer], seconds: float) -> str:
    """RESULTS.md."""
    claims = [(name, claim) for name, answer in answers.items() for claim in answer.claims]
    held = sum(claim.holds for _, claim in claims)
    parts = [name for answer in answers.values() for name in answer.versions]
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`. Everything in one table ran side by side, so compare within a table: the absolute",
        "figures are this machine's. *a ± b*: the median, and the median deviation from it.",
        "[docs/performance.md](../docs/performance.md) tells what follows.",
        "",
        f"- Machine: {harness.machine()}",
        f"- Versions: {harness.versions(['celery-argsize', 'celery', 'kombu', 'redis', 'orjson', *parts])}",
        f"- {held} of {len(claims)} targets hold. It took {seconds / 60:.1f} minutes.",
        "",
    ]
    for number, (name, answer) in enumerate(answers.items(), 1):
        lines += [f"## {number}. {answer.title}", "", f"`python benchmarks/{name}.py`", "", *answer.table(), ""]
        lines += [*(f"- {'✓' if claim.holds else '✗'} {claim}" for claim in answer.claims), ""]
        lines += [*answer.notes, ""] if answer.notes else []
        lines += [f"![{answer.chart.title}](charts/{name}.svg)", ""]
    return "\n".join(lines)


def main() -> int:
    """Run, write, and end with 1 if a target does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="small counts, to see that all of it works")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write RESULTS.md and charts/")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *BENCHMARKS], help=", ".join(BENCHMARKS))
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        names = options.names or BENCHMARKS
        answers = {name: measured(name, Path(folder), smoke=options.smoke) for name in names}
    out: Path | None = options.out or (None if options.names or options.smoke else harness.HERE)
    if out is not None:
        from charts import draw  # noqa: PLC0415 - only who draws needs matplotlib

        out.mkdir(parents=True, exist_ok=True)
        (out / "RESULTS.md").write_text(page(answers, time.perf_counter() - began), encoding="utf-8")
        for name, answer in answers.items():
            draw(answer.chart, out / "charts" / f"{name}.svg")
    missed = [f"{name}: {claim}" for name, answer in answers.items() for claim in answer.claims if not claim.holds]
    if options.smoke:
        print("\nAll of it works; the figures say nothing.")
        return 0
    print(f"\n{len(missed)} targets do not hold", *missed, sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
