"""Adding up: in any order and in any portions the same figures, and percentiles that bound the truth."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings, strategies as st

from celery_argsize.figures.counters import OTHER, Figures, Rules, Tally, TaskStats
from celery_argsize.figures.summary import summarize
from celery_argsize.measuring.cuts import CUTS
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import Measurement, Part
from celery_argsize.measuring.repr_shape import Shape
from celery_argsize.settings import DEFAULT_BUCKETS

RULES = Rules(large_task_chars=1024, bounds=DEFAULT_BUCKETS)

sizes = st.builds(lambda chars, extra: Size(chars, chars + extra), st.integers(0, 10**9), st.integers(0, 1000))
shapes = st.builds(Shape, *[st.integers(1, 10**6)] * 10)
cuts = st.builds(
    Part, sizes, st.sampled_from(CUTS), st.integers(2, 10**6), st.integers(0, 9), st.integers(0, 10**6), shapes
)
parts = cuts | st.builds(Part, st.none() | sizes, st.sampled_from(["intact", "custom"]), st.integers(2, 10**6))
measurements = st.builds(
    Measurement, st.sampled_from(["scan", "insert", "å"]), st.uuids().map(str), parts, parts, st.floats(1, 2e9)
)


def tally_of(seen: list[Measurement], max_names: int = 10) -> Tally:
    tally = Tally(max_names)
    for measurement in seen:
        tally.add(measurement, RULES)
    return tally


@settings(max_examples=300)
@given(st.lists(measurements, max_size=30), st.integers(0, 30))
def test_portions_add_up_to_the_whole(seen: list[Measurement], cut: int) -> None:
    merged = tally_of(seen[:cut])
    merged.merge(tally_of(seen[cut:]).tasks.items())
    assert merged.tasks == tally_of(seen).tasks


@settings(max_examples=300)
@given(st.lists(measurements, min_size=1, max_size=40))
def test_the_summary_says_what_was_measured(seen: list[Measurement]) -> None:
    summary = summarize(Figures("app", tally_of(seen).tasks))
    assert summary.total_tasks == len(seen)
    assert summary.truncated_tasks == sum(m.args.truncated or m.kwargs.truncated for m in seen)
    assert summary.unmeasurable_tasks == sum(m.args.size is None or m.kwargs.size is None for m in seen)
    args = [m.args.size for m in seen if m.args.size is not None]
    assert summary.max_args_size == max((size.chars for size in args), default=0)
    assert summary.avg_args_size == pytest.approx(sum(size.chars for size in args) / len(args) if args else 0)
    measured = [size.chars for m in seen for size in (m.args.size, m.kwargs.size) if size is not None]
    if measured:
        assert summary.largest_task is not None
        assert summary.largest_task.size == max(measured)
    else:
        assert summary.largest_task is None


@settings(max_examples=300)
@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=60))
def test_percentiles_are_upper_estimates_within_the_right_bucket(chars: list[int]) -> None:
    seen = [Measurement("scan", "id", Part(Size(n, n)), Part(None), 1.0) for n in chars]
    (task,) = summarize(Figures("app", tally_of(seen).tasks)).tasks
    ranked = sorted(chars)
    for share, estimate in ((0.5, task.args.p50), (0.95, task.args.p95), (0.99, task.args.p99)):
        truth = ranked[math.ceil(share * len(ranked)) - 1]
        bound = min((b for b in DEFAULT_BUCKETS if b >= truth), default=2**62)
        assert truth <= estimate <= min(bound, ranked[-1])
    assert sum(task.args.histogram.values()) == len(chars)


def test_buckets_are_inclusive_above() -> None:
    stats = TaskStats()
    for value in (0, 10, 11, 100, 101):
        stats.add(Measurement("scan", "id", Part(Size(value, value)), Part(None), 1), Rules(0, (10, 100)))
    found = {name: count for name, count in stats.counts.items() if name.startswith("args.bytes_le.")}
    assert found == {"args.bytes_le.10": 2, "args.bytes_le.100": 2, "args.bytes_le.+Inf": 1}


def test_large_is_over_the_limit_not_at_it() -> None:
    for chars, large in ((1024, 0), (1025, 1)):
        seen = Measurement("scan", "id", Part(Size(chars, chars)), Part(Size(0, 0)), 1)
        assert summarize(Figures("app", tally_of([seen]).tasks)).large_tasks == large


def test_names_past_the_cap_are_added_up_under_one_name() -> None:
    seen = [Measurement(f"task {n}", "id", Part(Size(n, n)), Part(Size(0, 0)), 1) for n in range(100)]
    tally = tally_of(seen, max_names=7)
    assert len(tally.tasks) == 8
    assert tally.tasks[OTHER].counts["count"] == 93
    assert tally.count == 100
    tally.add(seen[3], RULES)
    assert tally.tasks["task 3"].counts["count"] == 2
