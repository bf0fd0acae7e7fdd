"""The verdicts on headers, compared with what Celery's own producer and saferepr did to them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import celery
import pytest
from celery import Celery
from celery.utils.saferepr import saferepr
from hypothesis import example, given, settings, strategies as st
from kombu.utils.json import dumps, loads
from support.tricky_texts import TRICKY

from celery_argsize.measuring.cuts import CUTS, read_header

tricky = st.sampled_from([*TRICKY, "x " * 30, "('...',)"])
#: saferepr cuts a long text back to its last space, so that what follows the text may still have room.
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
limits = st.integers(50, 300) | st.sampled_from([1024, 5000, 200_000])
levels = st.integers(0, 6)

app = Celery("producer", set_as_current=False)


def produced(part: Any, limit: int, levels: int, **options: Any) -> str:
    """The header that Celery's own producer makes of *part*."""
    app.amqp.argsrepr_maxsize = app.amqp.kwargsrepr_maxsize = limit
    app.conf.task_repr_maxlevels = levels
    if isinstance(part, dict):
        return str(app.amqp.as_task_v2("id", "name", (), part, **options).headers["kwargsrepr"])
    return str(app.amqp.as_task_v2("id", "name", part, {}, **options).headers["argsrepr"])


def truth(part: Any, limit: int, levels: int) -> str:
    """The right verdict: a limit cut something if the header is another one without that limit."""
    header = saferepr(part, limit, levels)
    size = header != saferepr(part, None, levels)
    depth = header != saferepr(part, limit, 0)
    return "both" if size and depth else "size" if size else "depth" if depth else "intact"


@settings(max_examples=4000)
@given(part=args | kwargs, limit=limits, levels=levels)
@example(part=([{"id": 1, "tags": ["rock"]}],), limit=131_072, levels=3)
@example(part=([{"id": 1, "tags": ["rock"]}] * 50,), limit=300, levels=3)
@example(part=("Loading...",), limit=1024, levels=3)
@example(part=("Bearer " + "x" * 3000, "b", "c"), limit=1024, levels=3)
@example(part=("Bearer " + "x" * 3000, [[[[1]]]]), limit=1024, levels=3)
@example(part={"auth": "Bearer " + "x" * 3000, "id": 5}, limit=1024, levels=3)
@example(part=("a" * 40 + "....",), limit=50, levels=3)
@example(part=("it's " * 20,), limit=60, levels=3)
@example(part=([[1, 2, 3]] * 30,), limit=50, levels=2)
@example(part=({"\\": ["[...]", "x" * 200], "": None},), limit=230, levels=0)
@example(part=("[...]", "x" * 60, None), limit=77, levels=3)
@example(part=("\\", {"[...]": 1, "at": datetime(2026, 1, 1, 0, 0, fold=1)}), limit=62, levels=0)  # noqa: DTZ001
def test_the_verdict_is_what_celery_did(part: Any, limit: int, levels: int) -> None:
    header, expected = saferepr(part, limit, levels), truth(part, limit, levels)
    verdict = read_header(header, loads(dumps(part))).verdict  # as JSON brings it: tuples as lists
    if celery.VERSION >= (5, 7):
        assert header == produced(part, limit, levels)
        assert verdict == expected, header
    else:  # the levels are fixed, and the brackets behind a cut by size depend on them too
        assert verdict == expected or {verdict, expected} in ({"size", "both"}, {"depth", "both"}), header


@settings(max_examples=500)
@given(part=args | kwargs, limit=limits, levels=st.integers(1, 6))
@example(part=(datetime(2000, 1, 10, 10, 10, 1, fold=1), []), limit=50, levels=1)  # noqa: DTZ001
@example(part=([datetime(2000, 1, 10, 10, 10, 1, fold=1), [[]]],), limit=52, levels=2)  # noqa: DTZ001
def test_a_cut_by_depth_tells_the_levels_in_force(part: Any, limit: int, levels: int) -> None:
    reading = read_header(saferepr(part, limit, levels), loads(dumps(part)))
    assert reading.levels == (levels if reading.verdict in {"depth", "both"} else 0)


def test_a_repr_that_begins_like_the_value_but_is_shorter_than_a_member_is_custom() -> None:
    for value, header in ((["x" * 50], "('xs',)"), (([*range(20)],), "([numbers],)"), ({"a": [0] * 20}, "{'a': [0]}")):
        assert read_header(header, value).verdict == "custom"


@given(args | kwargs)
@pytest.mark.smoke
def test_the_header_that_was_not_cut(part: Any) -> None:
    assert read_header(saferepr(part, None, 0), part).verdict == "intact"


@pytest.mark.parametrize("header", [None, "", b"('...',)", 7, ["..."]])
def test_no_header_is_unknown(header: Any) -> None:
    assert read_header(header, ["whatever"]).verdict == "unknown"


@pytest.mark.parametrize(
    "header",
    [
        "<too large...>",
        "see the log...",
        "id=7, ...",
        "Batch of 7 songs",
        "Batch of 7 songs...",
        "(batch of 7 songs...)",
        "(batch of 7 songs)",
        "{...}",
        "[1, 2, ...]",
        "[...] [...]",
        "7 songs",
        "('nothing', 'of', 'the', 'kind', 'Loading...')",
    ],
)
@pytest.mark.smoke
def test_what_the_caller_wrote_is_custom(header: str) -> None:
    part = (["whatever"], {"it": "is"})
    assert produced(part, 1024, 3, argsrepr=header) == header
    assert read_header(header, loads(dumps(part))).verdict == "custom"


@given(st.text(), args)
def test_any_text_of_the_callers_is_read_without_an_error(header: str, part: Any) -> None:
    verdict = read_header(header, loads(dumps(part))).verdict
    if header and header[0] not in "([":
        assert verdict == "custom"


@pytest.mark.parametrize(
    ("sent", "limit", "levels"),
    [
        (({1: "one", 2: "two..."},), 1024, 3),  # int keys become text on the way
        (({1: "one", 2: "two" * 50},), 80, 3),
        (({"a": (1, 2, (3, ()))},), 1024, 9),
        (({"a": {"b": {"c": ["..."]}}},), 1024, 3),
        (({"a": {"b": {"c": ["..."]}}},), 1024, 9),
    ],
)
@pytest.mark.smoke
def test_types_that_json_changes(sent: Any, limit: int, levels: int) -> None:
    arrived = json.loads(json.dumps(sent))
    assert read_header(saferepr(sent, limit, levels), arrived).verdict == truth(sent, limit, levels)


@pytest.mark.parametrize("value", [{1, 2, 3}, frozenset({"..."}), b"...", b"\xff...", [b"a..."], {"s": set()}])
def test_types_that_only_pickle_brings(value: Any) -> None:
    assert read_header(saferepr((value,), None, 0), (value,)).verdict == "intact"


def test_a_long_header_is_read_in_linear_time_and_a_hostile_value_is_survived() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError

    assert read_header("(<Hostile>, 'x', ...)", [Hostile(), "xyz"]).verdict == "size"
    deep: Any = "..."
    for _ in range(5000):
        deep = [deep]
    assert read_header("[" * 5000 + "'...'" + "]" * 5000, deep).verdict not in CUTS
    many = ["..."] * 20_000
    assert read_header(saferepr(many, None, 0), many).verdict == "intact"
