"""What changed between two reports, held against an oracle that works on the runs themselves."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from celery_argsize import ConfigError, Measurement, Part, Size
from celery_argsize.figures.counters import Figures, Rules, Tally
from celery_argsize.figures.summary import Summary, summarize
from celery_argsize.settings import DEFAULT_BUCKETS
from celery_argsize.views.diff import PartChange, compare, diff_text, failures, failures_text, parse_snapshot

if TYPE_CHECKING:
    from celery_argsize.views.diff import Diff, Snapshot

    #: Of a run: characters of args and kwargs, ``None`` where unmeasurable; and whether args were truncated.
    Run = tuple[int | None, int | None, bool]

TASKS = ("music.scan", "insert", "__other__")
sizes = st.none() | st.integers(0, 5) | st.integers(0, 3_000_000)
reports = st.dictionaries(
    st.sampled_from(TASKS), st.lists(st.tuples(sizes, sizes, st.booleans()), min_size=1, max_size=4)
)


def part(chars: int | None, *, truncated: bool = False) -> Part:
    return Part(None if chars is None else Size(chars, chars), "size" if truncated else "intact")


def summary(runs: dict[str, list[Run]], since: float | None = None) -> Summary:
    tally = Tally(1000)
    for name, of_task in runs.items():
        for args, kwargs, truncated in of_task:
            parts = part(args, truncated=truncated), part(kwargs)
            tally.add(Measurement(name, "id", *parts, time.time()), Rules(1024, DEFAULT_BUCKETS))
    return summarize(Figures("music", tally.tasks, since=since, updated=since))


def snapshot(runs: dict[str, list[Run]], where: str = "a.json", since: float | None = None) -> Snapshot:
    """By way of a file, as people do it."""
    return parse_snapshot(json.loads(json.dumps(summary(runs, since).to_json())), where)


def diff(before: dict[str, list[Run]], after: dict[str, list[Run]]) -> Diff:
    return compare(snapshot(before), snapshot(after, "b.json"))


def found(seen: Diff, task: str, of: str) -> PartChange:
    return next(change for change in seen.parts if (change.task, change.part) == (task, of))


def mean(runs: list[Run], index: int) -> Fraction | None:
    known = [run[index] for run in runs if run[index] is not None]
    return Fraction(sum(size or 0 for size in known), len(known)) if known else None


@given(reports, reports, st.integers(0, 300))
def test_every_change_is_what_the_runs_say(
    before: dict[str, list[Run]], after: dict[str, list[Run]], allowed: int
) -> None:
    seen = diff(before, after)
    assert sorted((part.task, part.part) for part in seen.parts) == sorted(
        (task, part) for task in {*before, *after} for part in ("args", "kwargs")
    )
    too_much = {(failure.task, failure.part) for failure in failures(seen, growth=Fraction(allowed))}
    cut = {(failure.task, failure.part) for failure in failures(seen, truncation=True)}
    for task in {*before, *after}:
        for index, of in enumerate(("args", "kwargs")):
            change = found(seen, task, of)
            grew = False
            if task not in before:
                assert change.change == "new"
            elif task not in after:
                assert change.change == "gone"
            else:
                old, new = mean(before[task], index), mean(after[task], index)
                if old is None or new is None:
                    assert change.change == "unknown"
                else:
                    assert change.change == ("larger" if new > old else "smaller" if new < old else "same")
                    grew = new * 100 > old * (100 + allowed)
            assert ((task, of) in too_much) == grew
            was, now = (of == "args" and any(run[2] for run in runs.get(task, ())) for runs in (before, after))
            assert (change.truncation == "newly_truncated") == ((task, of) in cut) == (now and not was)
            assert (change.truncation == "no_longer_truncated") == (was and not now and task in after)


@given(reports)
def test_a_report_does_not_differ_from_itself(runs: dict[str, list[Run]]) -> None:
    seen = diff(runs, runs)
    assert {change.change for change in seen.parts} <= {"same", "unknown"}
    assert not failures(seen, growth=Fraction(0), truncation=True)


def test_what_is_newly_truncated_or_grew_most_comes_first() -> None:
    before: dict[str, list[Run]] = {
        "a": [(10, 0, False)],
        "b": [(10, 0, False)],
        "c": [(10, 0, False)],
        "d": [(1, 0, False)],
    }
    after: dict[str, list[Run]] = {
        "a": [(11, 0, False)],
        "b": [(20, 0, False)],
        "c": [(5, 0, True)],
        "e": [(1, 0, False)],
    }
    order = [change.task for change in diff(before, after).parts if change.part == "args"]
    assert order == ["c", "b", "a", "e", "d"]


def moments(before: float | None, after: float | None, *apps: str, runs: int = 2) -> Diff:
    """Of the same task, *runs* after one."""
    data = [summary({"scan": [(10, 0, False)] * n}, since).to_json() for n, since in ((1, before), (runs, after))]
    return compare(*(parse_snapshot({**one, "apps": [*apps]}, "a.json") for one in data))


def test_what_counts_from_the_same_moment_overlaps() -> None:
    assert moments(5.0, 5.0, "music").overlap
    assert "After includes Before" in diff_text(moments(5.0, 5.0, "music"))
    assert not moments(5.0, 6.0, "music").overlap
    assert not moments(None, None, "music").overlap
    assert not moments(5.0, 5.0, "music", runs=0).overlap, "the task is gone: it was reset"
    assert not moments(5.0, 5.0, "mail", "music").overlap, "the moment is that of one of them"


def test_a_date_that_is_none_makes_no_report() -> None:
    data = summary({"scan": [(10, 0, False)]}, 5.0).to_json()
    for moment in (1e18, 2.0**62, float("inf"), -1.0):
        with pytest.raises(ConfigError, match=r"a\.json is not a report"):
            parse_snapshot({**data, "since": moment}, "a.json")


def test_from_nothing_to_something_is_growth_beyond_any_bound() -> None:
    seen = diff({"scan": [(0, 0, False)]}, {"scan": [(0, 9, False)]})
    (failure,) = failures(seen, growth=Fraction(10**6))
    assert (failure.task, failure.part, failure.reason) == ("scan", "kwargs", "growth")
    assert "scan (kwargs): grew from 0, mean 0 -> 9 characters" in failures_text([failure])
    assert found(seen, "scan", "kwargs").to_json()["growth_percent"] is None
    assert "larger (from 0)" in diff_text(seen)


def test_growth_by_just_what_is_allowed_does_not_fail() -> None:
    thirds: list[Run] = [(3, 0, False), (3, 0, False), (4, 0, False)]
    seen = diff({"scan": thirds}, {"scan": [(4, 0, False)]})
    assert not failures(seen, growth=Fraction(20))
    assert failures(seen, growth=Fraction("19.999999999"))


def test_what_is_the_same_takes_one_line_unless_all_is_wanted() -> None:
    before: dict[str, list[Run]] = {f"same{n}": [(7, 3, False)] for n in range(12)}
    seen = diff({**before, "scan": [(10, 0, False)]}, {**before, "scan": [(15, 0, False)]})
    text = diff_text(seen)
    assert "Tasks: 1 larger, 12 unchanged." in text
    assert "same0" not in text
    assert "larger +50.0 %" in text
    assert "10 -> 15" in text
    assert diff_text(seen, everything=True).count("same1 ") == 2


def test_a_report_that_has_the_other_one_in_it_says_so() -> None:
    runs: dict[str, list[Run]] = {"scan": [(7, 3, False)]}
    assert "After includes Before" in diff_text(compare(snapshot(runs, since=5.0), snapshot(runs, since=5.0)))
    assert "After includes Before" not in diff_text(compare(snapshot(runs, since=5.0), snapshot(runs, since=6.0)))


def test_a_hostile_name_cannot_move_the_cursor_or_pass_for_lines() -> None:
    data = summary({"scan": [(7, 3, True)]}).to_json()
    data["tasks"]["\x1b[2J\nTasks: 0"] = data["tasks"].pop("scan")
    text = diff_text(compare(snapshot({}), parse_snapshot(data, "a.json")))
    assert "\x1b" not in text
    assert r"\x1b[2J\nTasks: 0" in text


def changed(**new: Any) -> dict[str, Any]:
    return {**summary({"scan": [(7, 3, False)]}).to_json(), **new}


def with_part(**new: Any) -> dict[str, Any]:
    data = changed()
    data["tasks"]["scan"]["args"].update(new)
    return data


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "text",
        3,
        {},
        {"schema": 1},
        {"schema": True, "tasks": {}},
        {"schema": "1"},
        {"schema": 1, "verdict": "too_few", "total_tasks": 0, "since": None, "updated": None, "tasks": {}},
        changed(tasks=[]),
        changed(tasks={"scan": None}),
        changed(tasks={"scan": {"args": {}}}),
        changed(since="yesterday"),
        changed(total_tasks=-1),
        changed(apps=None),
        changed(apps=5),
        changed(apps="music"),
        with_part(mean=None),
        with_part(mean=float("nan")),
        with_part(mean=float("inf")),
        with_part(mean=-1),
        with_part(count=1.5),
        with_part(count=True),
        with_part(max=10**400),
        with_part(truncated="3"),
    ],
)
def test_what_is_no_report_is_refused_with_its_name_and_the_fix(data: object) -> None:
    with pytest.raises(ConfigError, match=r"old\.json is not a report of celery-argsize.*report --json > FILE"):
        parse_snapshot(data, "old.json")


def test_another_schema_is_named() -> None:
    with pytest.raises(ConfigError, match=r"old\.json has schema 2, and this version of celery-argsize reads 1"):
        parse_snapshot(changed(schema=2), "old.json")


def test_keys_that_a_later_version_adds_do_no_harm() -> None:
    assert parse_snapshot(with_part(p999=5), "a.json").tasks["scan"]["args"].count == 1
    assert parse_snapshot(changed(new={"a": 1}), "a.json").total_tasks == 1


@pytest.mark.slow
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text() | st.integers(), st.lists))
def test_any_value_in_place_of_any_other_is_taken_or_refused(value: object) -> None:
    broken = [changed(**{key: value}) for key in changed()]
    broken += [with_part(**{key: value}) for key in changed()["tasks"]["scan"]["args"]]
    for data in broken:
        try:
            seen = parse_snapshot(data, "a.json")
        except ConfigError:
            continue
        assert diff_text(compare(seen, snapshot({})))
