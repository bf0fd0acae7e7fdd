"""How figures that are read again and again change: rates, trends and resets; and how that fits a terminal."""

from __future__ import annotations

import time
from collections import Counter as Numbers
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st
from rich.console import Console
from rich.screen import Screen

from celery_argsize import Measurement, Part, Size
from celery_argsize.figures.counters import Figures, Rules, Tally
from celery_argsize.figures.summary import Summary, summarize
from celery_argsize.settings import DEFAULT_BUCKETS
from celery_argsize.views.watch import History, Row, View
from celery_argsize.words import width

if TYPE_CHECKING:
    from collections.abc import Iterable

RULES = Rules(1024, DEFAULT_BUCKETS)
URL = "redis://127.0.0.1:6379/0"


class Counted:
    """What Redis would hold: figures that only rise, until they are reset."""

    def __init__(self) -> None:
        self.reset(0)

    def reset(self, since: float) -> None:
        self.tally, self.since = Tally(10_000), since

    def run(self, name: str, *sizes: int, truncated: bool = False, kwargs: int = 0) -> None:
        for size in sizes:
            parts = Part(Size(size, size), "size" if truncated else "intact"), Part(Size(kwargs, kwargs), "intact")
            self.tally.add(Measurement(name, "id", *parts, time.time()), RULES)

    @property
    def summary(self) -> Summary:
        return summarize(Figures("music", self.tally.tasks, since=self.since, updated=self.since))


@pytest.fixture
def counted() -> Counted:
    return Counted()


def only(rows: Iterable[Row]) -> Row:
    (row,) = rows
    return row


def test_before_the_second_look_no_rate_is_known(counted: Counted) -> None:
    counted.run("scan", 100, 200, truncated=True)
    row = only(History().add(counted.summary, 50))
    assert (row.rate, row.trend, row.new, row.lately) == (None, None, {}, {})
    assert (row.part, row.task.args.max, row.task.truncated) == ("args", 200, 2)


def test_the_rate_is_that_of_the_last_ten_seconds(counted: Counted) -> None:
    history = History()
    counted.run("scan", 1)
    history.add(counted.summary, 0)
    for now in range(2, 22, 2):
        counted.run("scan", *[1] * 6)
        row = only(history.add(counted.summary, now))
        assert row.rate == pytest.approx(3)
        assert row.new["runs"] == 6
    for now in range(22, 30, 2):
        row = only(history.add(counted.summary, now))
        assert row.rate == pytest.approx(3 * (30 - now) / 10)
    assert only(history.add(counted.summary, 30)).rate == 0


def test_with_long_intervals_the_rate_is_that_of_the_last_one(counted: Counted) -> None:
    history = History()
    for now in (0, 100, 200):
        counted.run("scan", *[1] * now)
        row = only(history.add(counted.summary, now)) if now else history.add(counted.summary, now)
    assert isinstance(row, Row)
    assert row.rate == 2


def test_a_task_that_is_new_counts_from_zero(counted: Counted) -> None:
    history = History()
    history.add(counted.summary, 0)
    counted.run("scan", 1, 2, 3, 4)
    row = only(history.add(counted.summary, 2))
    assert (row.rate, row.new["runs"]) == (2, 4)


def test_the_trend_is_the_last_minute_against_all_since_the_reset(counted: Counted) -> None:
    history = History()
    counted.run("scan", *[100] * 30)
    assert only(history.add(counted.summary, 0)).trend is None
    assert only(history.add(counted.summary, 2)).trend is None, "nothing ran"
    counted.run("scan", *[200] * 10, truncated=True)
    row = only(history.add(counted.summary, 4))
    assert row.trend == pytest.approx(200 / 125 - 1)
    assert row.lately["truncated"] == 10
    assert only(history.add(counted.summary, 60)).trend == pytest.approx(200 / 125 - 1)
    row = only(history.add(counted.summary, 130))
    assert (row.trend, row.lately["truncated"], row.new["truncated"]) == (None, 0, 0)


def test_the_trend_is_that_of_the_larger_part(counted: Counted) -> None:
    history = History()
    counted.run("scan", 100, kwargs=1000)
    history.add(counted.summary, 0)
    counted.run("scan", 900, kwargs=500)
    row = only(history.add(counted.summary, 2))
    assert row.part == "kwargs"
    assert row.trend == pytest.approx(500 / 750 - 1)


def test_after_a_reset_nothing_is_negative_and_counting_begins_anew(counted: Counted) -> None:
    history = History()
    counted.run("scan", *[1000] * 50, truncated=True)
    history.add(counted.summary, 0)
    counted.reset(1)
    counted.run("scan", 10, 10)
    row = only(history.add(counted.summary, 2))
    assert (row.new["runs"], row.rate, row.lately["truncated"], row.trend) == (2, 1, 0, 0)


def test_a_reset_shows_even_where_more_ran_since_than_before(counted: Counted) -> None:
    history = History()
    counted.run("scan", 10)
    history.add(counted.summary, 0)
    counted.reset(1)
    counted.run("scan", 10, 10, 10)
    assert only(history.add(counted.summary, 2)).new["runs"] == 3


def test_a_reset_of_one_task_leaves_the_others(counted: Counted) -> None:
    history = History()
    counted.run("scan", 10, 10)
    counted.run("insert", 5, 5, 5)
    history.add(counted.summary, 0)
    counted.tally.clear("scan")
    counted.run("insert", 5)
    assert only(history.add(counted.summary, 2)).new["runs"] == 1
    counted.run("scan", 10)
    assert [row.new["runs"] for row in history.add(counted.summary, 4)] == [1, 0]


def test_what_is_remembered_is_a_minute(counted: Counted) -> None:
    history = History()
    for now in range(300):
        history.add(counted.summary, now)
    assert len(history._moments) <= 62


steps = st.lists(
    st.tuples(
        st.sampled_from(["run", "run", "run", "reset", "forget"]),
        st.sampled_from(["scan", "insert"]),
        st.integers(0, 9),
        st.floats(0.5, 90),
    ),
    max_size=30,
)


@given(steps)
def test_whatever_happens_nothing_is_negative_and_no_more_than_was_counted(
    done: list[tuple[str, str, int, float]],
) -> None:
    counted, history, now = Counted(), History(), 0.0
    for what, name, size, later in done:
        if what == "reset":
            counted.reset(now)
        elif what == "forget":
            counted.tally.clear(name)
        else:
            counted.run(name, *[size] * size, truncated=size > 4)
        now += later
        for row in history.add(counted.summary, now):
            task = next(task for task in counted.summary.tasks if task.name == row.task.name)
            assert 0 <= row.new["runs"] <= task.count
            assert 0 <= row.new["truncated"] <= row.lately["truncated"] <= row.task.truncated == task.truncated
            assert row.rate is None or 0 <= row.rate * 0.5 <= task.count
            assert row.trend is None or row.trend >= -1


def screen(view: View, columns: int, lines: int, *, color: bool = False) -> list[str]:
    """What rich paints on a terminal of that size, without the empty lines at its end."""
    console = Console(
        file=StringIO(),
        width=columns,
        height=lines,
        force_terminal=True,
        color_system="standard" if color else None,
        _environ={},
    )
    with console.capture() as capture:
        console.print(Screen(view), end="")
    shown = [line.rstrip() for line in capture.get().split("\n")]
    assert len(shown) == lines
    while shown and not shown[-1]:
        shown.pop()
    return shown


def view_of(names: Iterable[str], **more: object) -> View:
    counted, history = Counted(), History()
    for name in names:
        counted.run(name, 1_234_567)
    history.add(counted.summary, 0)
    for name in names:
        counted.run(name, 2_234_567, truncated=True)
    view = View(URL, counted.summary, history.add(counted.summary, 2))
    return replace(view, **more)  # type: ignore[arg-type]


@given(
    st.lists(st.text(st.sampled_from("ab.é任務🎵\u0301"), min_size=1, max_size=60), unique=True, max_size=12),
    st.integers(1, 150),
    st.integers(1, 20),
    st.sampled_from(["", "cannot read from Redis: no connection"]),
)
def test_the_screen_fits_any_terminal(names: list[str], columns: int, lines: int, stale: str) -> None:
    shown = screen(view_of(names, stale=stale), columns, lines)
    assert len(shown) <= lines
    assert max(map(width, shown)) <= columns


def test_the_screen_at_work() -> None:
    title, totals, empty, head, row, below = screen(view_of(["music.scan"]), 120, 24)
    assert title == f"music at {URL}, since 1970-01-01 00:00:00 UTC"
    assert totals == "2 runs, 0.5/s; 1 (+1) truncated; newest: 1970-01-01 00:00:00 UTC"
    assert empty == ""
    assert " ".join(head.split()) == "task rate/s part p50 <= p95 <= max truncated trend"
    assert " ".join(row.split()) == "music.scan 0.5 args 2,097,152 2,234,567 2,234,567 1 (+1) ↑ +29 %"
    assert "Ctrl-C" in below


def test_what_there_is_no_room_for_is_counted() -> None:
    view = view_of([f"task{n}" for n in range(30)])
    assert screen(view, 100, 12)[-1] == "… and 23 more, with 11.5 runs/s in all; --task shows some"
    assert sum("task" in line for line in screen(view, 100, 12)[4:-1]) == 7
    assert "more" not in screen(view, 100, 36)[-1]


@pytest.mark.parametrize("lines", [3, 4, 5])
def test_a_very_low_terminal_still_shows_a_task(lines: int) -> None:
    shown = screen(view_of(["music.scan", "insert", "mail"]), 40, lines)
    assert len(shown) == lines
    assert shown[-1].startswith(("music.scan", "insert", "mail"))


def test_on_a_narrow_terminal_columns_go_but_numbers_are_never_cut() -> None:
    view = view_of(["music.library.extract_metadata_batch"])
    for columns in range(8, 120):
        head, row = screen(view, columns, 24)[3:5]
        name, *figures = row.split()
        assert {*figures} <= {"0.5", "args", "2,097,152", "2,234,567", "1", "(+1)", "↑", "+29", "%"}
        assert name.startswith("m")
        assert ("2,234,567" in row) == ("max" in head or "p95" in head)
    assert "…" in screen(view, 60, 24)[4]
    assert "max" in screen(view, 30, 24)[3]


def test_old_figures_are_marked_as_such() -> None:
    shown = screen(view_of(["scan"], stale="Last read: then; cannot read"), 100, 24)
    assert "OLD FIGURES. Last read: then; cannot read" in shown
    assert any("scan" in line for line in shown)


def test_nothing_measured_yet_is_said(counted: Counted) -> None:
    view = View(URL, counted.summary, ())
    assert "Nothing has been measured yet." in "\n".join(screen(view, 100, 24))
    assert "Of tasks with 'x' in their names, nothing" in "\n".join(screen(replace(view, name_filter="x"), 100, 24))


def test_what_is_new_and_bad_is_colored_and_a_steep_trend() -> None:
    row = screen(view_of(["scan"]), 100, 24, color=True)[4].replace(" ", "")
    assert "\x1b[1;31m1(+1)\x1b[0m" in row, "bold and red"
    assert "\x1b[33m↑+29%\x1b[0m" in row, "yellow"


def test_lines_are_for_tasks_that_ran_and_for_programs() -> None:
    view = view_of(["music.scan", "music insert"])
    idle = replace(view.rows[0], new=Numbers())
    (line,) = replace(view, rows=[idle, view.rows[1]]).changes(0)
    assert line == (
        "1970-01-01T00:00:00Z runs=1 rate=0.5 part=args p50=2097152 p95=2234567 max=2234567 truncated=1 "
        "new_truncated=1 trend=+29% task=music.scan"
    )


def test_a_hostile_name_cannot_move_the_cursor(counted: Counted) -> None:
    counted.run("\x1b[2J\nscan", 5)
    history = History()
    history.add(Counted().summary, 0)
    view = View(URL, counted.summary, history.add(counted.summary, 2))
    for line in [*screen(view, 100, 24), *view.changes(0)]:
        assert line.isprintable()
