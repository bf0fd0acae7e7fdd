"""Whether Celery cut a header, against Celery's own saferepr: cut is what differs from the unlimited repr."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery.utils.saferepr import saferepr
from hypothesis import example, given, settings, strategies as st
from kombu.utils.json import dumps, loads

from celery_argsize.truncation import is_truncated

tricky = st.sampled_from(
    [
        "...",
        "Loading...",
        "a...b",
        "[...]",
        "{...}",
        "', ...",
        "it's",
        "'...'",
        "\\",
        ", ...]",
        "x " * 30,
        "....",
        "('...',)",
    ]
)
#: saferepr cuts a long text back to its last space, and what follows it may still have room.
words = st.builds(
    lambda word, length: f"{word} {'x' * length}", st.sampled_from(["Bearer", "see", "a b", ""]), st.integers(0, 3000)
)
dates = st.datetimes().map(lambda moment: moment.replace(microsecond=0))
scalars = (
    words
    | dates
    | (
        st.none()
        | st.booleans()
        | st.integers(-(10**30), 10**30)
        | st.floats(allow_nan=False)
        | st.text(max_size=60)
        | tricky
    )
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=8) | tricky, inner, max_size=5)
    ),
    max_leaves=25,
)
args = st.lists(values, max_size=4).map(tuple)
kwargs = st.dictionaries(st.text("abc", min_size=1, max_size=4), values, max_size=4)
limits = st.integers(50, 300) | st.sampled_from([1024, 5000])


@settings(max_examples=4000)
@given(part=args | kwargs, limit=limits, levels=st.integers(0, 6))
@example(part=([{"id": 1, "tags": ["rock"]}],), limit=131_072, levels=3)
@example(part=("Loading...",), limit=1024, levels=3)
@example(part=("Bearer " + "x" * 3000, "b", "c"), limit=1024, levels=3)
@example(part={"auth": "Bearer " + "x" * 3000, "id": 5}, limit=1024, levels=3)
@example(part=("a" * 40 + "....",), limit=50, levels=3)
@example(part=("it's " * 20,), limit=60, levels=3)
def test_cut_is_what_differs_from_the_unlimited_repr(part: Any, limit: int, levels: int) -> None:
    header = saferepr(part, limit, levels)
    arrived = loads(dumps(part))  # as JSON brings it: tuples as lists
    assert is_truncated(header, arrived) == (header != saferepr(part, None, 0))


@given(args | kwargs)
def test_the_header_that_was_not_cut(part: Any) -> None:
    assert not is_truncated(saferepr(part, None, 0), part)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "<too large...>",
        "see the log...",
        "id=7, ...",
        b"('...',)",
        7,
        ["..."],
        "Batch of 7 songs...",
        "(batch of 7 songs...)",
    ],
)
def test_missing_and_custom_headers_were_not_cut_by_celery(header: Any) -> None:
    assert not is_truncated(header, ["whatever", {"it": "is"}])


@pytest.mark.parametrize(
    ("sent", "limit", "levels", "cut"),
    [
        (({1: "one", 2: "two..."},), 1024, 3, False),  # int keys become text on the way
        (({1: "one", 2: "two" * 50},), 80, 3, True),
        (({"a": (1, 2, (3, ()))},), 1024, 9, False),
        (({"a": {"b": {"c": ["..."]}}},), 1024, 3, True),
        (({"a": {"b": {"c": ["..."]}}},), 1024, 9, False),
    ],
)
def test_types_that_json_changes(sent: Any, limit: int, levels: int, cut: bool) -> None:  # noqa: FBT001 - a parameter
    assert is_truncated(saferepr(sent, limit, levels), json.loads(json.dumps(sent))) is cut


@pytest.mark.parametrize("value", [{1, 2, 3}, frozenset({"..."}), b"...", b"\xff...", [b"a..."], {"s": set()}])
def test_types_that_only_pickle_brings(value: Any) -> None:
    assert not is_truncated(saferepr((value,), None, 0), (value,))


def test_a_long_header_is_read_in_linear_time_and_a_hostile_value_is_survived() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError

    assert is_truncated("(<Hostile>, 'x', ...)", [Hostile(), "xyz"])
    deep: Any = "..."
    for _ in range(5000):
        deep = [deep]
    assert not is_truncated("[" * 5000 + "'...'" + "]" * 5000, deep)
    many = ["..."] * 20_000
    assert not is_truncated(saferepr(many, None, 0), many)
