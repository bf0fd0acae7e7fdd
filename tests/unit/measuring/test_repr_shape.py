"""The length and levels of reprs that were never written, compared with Celery's own saferepr."""

from __future__ import annotations

import json
import string
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from celery.utils.saferepr import saferepr
from hypothesis import example, given, settings, strategies as st
from kombu.utils.json import dumps, loads

from celery_argsize.measuring import pure
from celery_argsize.measuring.json_size import Walked
from celery_argsize.measuring.repr_shape import Shape, measure_shape
from celery_argsize.measuring.walk import compiled

texts = st.text(max_size=40) | st.sampled_from(
    ["it's", '"', "\\", "a, b: c", '{"a": [1, 2]}', "\n\x01", "\\'", '\\"', "[]", "é, ü", "🎵'🎵", '", "', '":']
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
jsonlike = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(texts, inner, max_size=5), max_leaves=40
)
parts = st.lists(jsonlike, max_size=4) | st.dictionaries(
    st.text(string.ascii_letters, max_size=6), jsonlike, max_size=4
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        value = [*value.values()]
    return 1 + max(map(depth, value), default=0) if isinstance(value, (list, tuple)) else 0


def shape(part: Any, header: str = "") -> Shape:
    found = measure_shape(Walked(part), header)
    assert found is not None
    return found


def check(part: Any, seen: Shape) -> None:
    whole = saferepr(part, None, 0)
    assert seen.need == len(whole)
    assert seen.levels == depth(part)
    assert seen.escaped == len(json.dumps(whole)) - 2


@settings(max_examples=1000)
@given(parts)
@example([{"a": "'"}])
@example({"a": '\\",'})
def test_the_need_is_the_length_of_the_whole_repr_and_no_less_would_do(part: Any) -> None:
    seen = shape(part)
    check(part, seen)
    assert saferepr(part, seen.need, seen.levels) == saferepr(part, None, 0)
    assert saferepr(part, seen.need, seen.levels - 1 or 1) == saferepr(part, None, 0) or seen.levels > 1
    assert shape(part, "[<foreign>").need >= seen.need  # any list of one may have been a tuple


@given(value=jsonlike, times=st.integers(pure.SMALL, 2 * pure.SMALL))
@example(value=[1], times=pure.SMALL)
@example(value={"1": None, "2.5": 0, "null": 1}, times=pure.SMALL)
def test_the_need_of_many_members(value: Any, times: int) -> None:
    part = [value] * times
    # saferepr would take hours: the brackets and commas of the list, and its members
    need = 2 * times + times * (len(saferepr([value], None, 0)) - 2)
    seen = shape(part)
    assert seen.levels == depth(part)
    if compiled is None:
        assert need <= seen.need <= 1.1 * need
    else:
        assert seen.need == need


@example(({"\\": None, "{<": None},))  # its header looks like that of an object
@given(st.lists(jsonlike, min_size=1, max_size=3).map(tuple))
def test_a_tuple_that_came_as_a_list(part: Any) -> None:
    header = saferepr(part, None, 0)
    assert shape(loads(dumps(part)), header).need == len(header)


ODD: tuple[Any, ...] = (
    datetime(2026, 11, 21, 10, 30, 0, 250_000, tzinfo=timezone(timedelta(hours=1))),
    Decimal("1.50"),
    UUID(int=7),
    b"bytes",
    b"\xff\x00",
    "é".encode(),
    {1, 2},
    frozenset({"a"}),
    set(),
    (1,),
    ((1,), (2,)),
    10**30,
    float("nan"),
    {1: "one"},
    "\ud800",
)


@pytest.mark.parametrize("value", ODD, ids=repr)
@pytest.mark.parametrize("times", [1, 3000])
def test_what_json_lacks_is_never_under(value: Any, times: int) -> None:
    part = ([value] * times,)
    header = saferepr(part, 1024, 3)
    seen = shape(part, header)
    assert saferepr(part, seen.need, seen.levels) == saferepr(part, None, 0)
    assert len(saferepr(part, None, 0)) <= seen.need <= len(saferepr(part, None, 0)) * 1.5 + 10


@pytest.mark.slow
def test_what_is_walked_through_is_bounded_and_still_not_under() -> None:
    part = [[{"id": n, "at": datetime(2026, 11, 21, 10, 30, n % 60)} for n in range(40_000)]]  # noqa: DTZ001 - naive ones
    whole = len(saferepr(part, None, 0))
    assert len(dumps(part)) > 2_600_000
    assert whole <= shape(part).need <= whole * 1.1


def test_a_sign_within_a_text_is_no_sign() -> None:
    part = [["a < b, <c>", ",) and so on"], ["x"]]
    header = saferepr(part, None, 0)
    assert shape(part, header).need == len(header)


@pytest.mark.parametrize(
    "blob", ['it\'s, a: "text"\n\\' * 40_000, "é🎵'" * 60_000, b"bytes" * 60_000, b"\xff" * 200_000]
)
def test_one_big_text(blob: Any) -> None:
    whole = len(saferepr(["id", blob], None, 0))
    assert whole <= shape(["id", blob]).need <= whole + 6


def test_what_has_no_json_form_has_no_shape() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    assert measure_shape(Walked(cycle), "") is None
    assert measure_shape(Walked([object()]), "") is None
