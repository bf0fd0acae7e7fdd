"""Measures how fluid the page of ``argsize report --html`` is, with 100 and 1,000 tasks, in a real Chromium.

    python benchmarks/page.py

Each task has two histograms of many bars. The two pages take turns. While a page is sorted, filtered and scrolled, and
all its rows are opened, the longest time is measured in which it does not respond (a "long task"), and how much of a
sort is the script's part. Needs Chromium, Node and npm, as the tests of the page do. Without a graphics card, painting
takes most of the time.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "tests"), str(HERE.parent / "scripts")]

from harness import Answer, Chart, Claim, ratio, run, spread  # noqa: E402
from support.pages import Browser, many  # noqa: E402

#: Name of the action in driver.js → its name in the table.
ACTS: Final = {
    "sort": "sort: the script alone",
    "sorting": "sort",
    "filtering": "filter",
    "all": "open all",
    "scrolling": "scroll",
}

#: Targets: milliseconds in which the page may not respond.
TARGETS: Final = {"sorting": 1000, "filtering": 500, "all": 300, "scrolling": 200}


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - harness.run calls it with one argument
    """Measure both pages."""
    counts, rounds = ((60, 120), 1) if smoke else ((100, 1000), 5)
    browser = Browser()
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = {count: Path(folder) / f"{count}.html" for count in counts}
            for count, file in files.items():
                file.write_text(many(count), encoding="utf-8")
            looks = [{count: browser("fluid", file)["result"] for count, file in files.items()} for _ in range(rounds)]
            megabytes = files[counts[-1]].stat().st_size / 1e6
    finally:
        browser.close()
    times = {act: {count: [float(look[count][act]) for look in looks] for count in counts} for act in ACTS}
    few, most = counts
    return Answer(
        title="Does the page stay fluid?",
        head=["longest milliseconds without a response", *(f"{count:,} tasks" for count in counts)],
        rows=[[ACTS[act], *(spread(times) for times in by_count.values())] for act, by_count in times.items()],
        claims=[
            Claim(
                f"sort, the script alone, {most:,} tasks compared with {few:,}",
                ratio(times["sort"][most], times["sort"][few]),
                13,
            ),
            *(
                Claim(f"{ACTS[act]}, {most:,} tasks", statistics.median(times[act][most]), target, "ms")
                for act, target in TARGETS.items()
            ),
        ],
        chart=Chart(
            title=f"A page of {most:,} tasks",
            x="milliseconds",
            y="",
            series={"longest time without a response": [(ACTS[act], of[most][0]) for act, of in times.items()]},
            bars=True,
        ),
        notes=[f"The page of {most:,} tasks is {megabytes:.1f} MB."],
    )


if __name__ == "__main__":
    sys.exit(run(answer))
