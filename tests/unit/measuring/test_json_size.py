"""Sizes, compared with json.dumps and kombu's encoder. Nothing here shares code with what it tests."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import math
import socket
import subprocess
import sys
import tracemalloc
import uuid
from collections import OrderedDict, namedtuple
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st
from kombu.utils.json import dumps as kombu_dumps
from support.servers import compact

from celery_argsize import UNMEASURABLE, measure_json_size
from celery_argsize.measuring.json_size import Size, Walked
from celery_argsize.measuring.measurement import measure_part
from celery_argsize.measuring.walk import compiled

texts = st.text() | st.text("\"\\\x00\n\x7fé€😀'-e0.null") | st.uuids().map(str)
floats = st.floats() | st.floats(-1e-3, 1e-3) | st.integers(-10, 10).map(lambda power: 1.5 * 10.0**power)
scalars = st.none() | st.booleans() | st.integers() | floats | texts
keys = texts | st.integers() | st.booleans() | st.none() | st.floats()
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner, max_size=8),
    max_leaves=30,
)


def size_of(text: str) -> Size:
    return Size(len(text), len(text.encode("utf-8", "surrogatepass")))


@settings(max_examples=1500)
@given(json_values)
@example([1e-5, 1.25e-5, 9.99e-5, 1e-7, -1e-9, 1e-10, 1e16, 1e22])
@example([10.00001, 0.0001, 0.00001])
@example({"a": "0.00001", "b": 1e-5, "c": "3e-7]"})
@example(["null", None, math.nan, -math.inf])
@example([2**64, -(2**63) - 1, "\ud800"])
@example("\ud800" * 3)
def test_every_json_value_has_the_size_that_json_dumps_gives(value: Any) -> None:
    assert Walked(value).size == size_of(compact(value))
    assert measure_json_size(value) == len(compact(value))


@settings(max_examples=500)
@given(value=json_values, times=st.integers(50, 400))
def test_many_members_change_no_size(value: Any, times: int) -> None:
    assert Walked([value] * times).size == size_of(compact([value] * times))


class Color(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class WithJson:
    def __json__(self) -> dict[str, int]:
        return {"a": 1}


class Shouting(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        return [(key.upper() * 2, value) for key, value in super().items()]


Point = namedtuple("Point", "x y")  # noqa: PYI024 - a plain one is the point

kombu_values = st.one_of(
    st.datetimes(timezones=st.none() | st.just(dt.timezone.utc)),
    st.dates(),
    st.times(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.binary(),
    st.builds(WithJson),
)


@settings(max_examples=500)
@given(st.recursive(kombu_values | scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner)))
@example([b"\xe2\x82\xac" * 60_000, b"x\xff" * 70_000, b'"\n' * 70_000, b"\xe2\x82" * 70_000])
def test_what_json_lacks_is_sized_as_kombu_sends_it(value: Any) -> None:
    text = kombu_dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert Walked(value).size == size_of(text)
    assert measure_json_size(value) == len(text)


@pytest.mark.parametrize(
    ("value", "same_as"),
    [
        ({1, 2, 3}, [1, 2, 3]),
        (frozenset({"å"}), ["å"]),
        ([Color.RED], ["red"]),
        ({"n": Number.ONE}, {"n": 1}),
        (Point(1, 2), [1, 2]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (Shouting(a=1), {"AA": 1}),
        ([], []),
        ({}, {}),
        ("", ""),
    ],
)
def test_other_kinds(value: Any, same_as: Any) -> None:
    assert measure_json_size(value) == len(compact(same_as))


class Hostile:
    def __reduce__(self) -> Any:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError

    def __json__(self) -> Any:
        raise ZeroDivisionError

    def __len__(self) -> int:
        raise RuntimeError


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def cycle() -> list[Any]:
    value: list[Any] = [1, 2]
    value.append({"again": value})
    return value


def test_what_has_no_json_form_is_never_zero_and_never_raises() -> None:
    with socket.socket() as sock:
        for value in (
            sock,
            cycle(),
            [cycle()] * 3,
            nested(10_000),
            Hostile(),
            {(1, 2): 3},
            object(),
            [1, {2: Hostile()}],
        ):
            assert Walked(value).size is None
            assert measure_json_size(value) == UNMEASURABLE == -1
    assert Walked(nested(300)).size == Size(602, 602)


@pytest.mark.parametrize("part", [None, (), [], {}])
def test_an_empty_part_counts_nothing(part: Any) -> None:
    assert measure_part(part, None).size == (0, 0)


def test_a_part_that_is_not_empty_counts_whole() -> None:
    assert measure_part(([],), None).size == (4, 4)
    assert measure_part({"a": "é"}, None).size == (9, 10)
    assert measure_part(Hostile(), None).size is None


RECORD = {"id": 12345, "title": "A song of some length", "tags": ["rock", "pop"], "year": 1999, "none": None}
BIG = {
    "records": [RECORD] * 100_000,
    "one text": "x" * 10_000_000,
    "non-ASCII text": "é" * 5_000_000,
    "ids": list(range(1_000_000, 2_000_000)),
    "dict of dicts": {str(number): {"a": RECORD} for number in range(60_000)},
    "a blob beside an id": [7, {"name": "x", "blob": "y" * 10_000_000}],
    "a blob between small ones": [1, 2, {"rows": ["a", "y" * 10_000_000, "b"]}],
    "a blob in a dict": {"n": {**{str(i): i for i in range(9)}, "blob": "y" * 10_000_000, "m": 1}},
    "bytes that are text": [b"\xc3\xa9x" * 3_000_000],
    "bytes that are none": {"blob": b"\xff" * 10_000_000},
    "deep": {str(i): {str(j): [RECORD] * 20 for j in range(40)} for i in range(80)},
}


@pytest.mark.parametrize("shape", BIG)
def test_big_arguments_are_measured_without_a_second_copy(shape: str) -> None:
    """The pure twin makes copies: json's text, its UTF-8, and a marshaled one."""
    value = BIG[shape]
    expected = size_of(kombu_dumps(value, ensure_ascii=False, separators=(",", ":")))
    tracemalloc.start()
    try:
        assert Walked(value).size == expected
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert expected.bytes > 5_000_000
    assert peak < 2_000_000 or compiled is None


def test_the_pure_rooms_import_neither_celery_nor_redis_nor_prometheus() -> None:
    pure = (
        "measuring.cuts measuring.json_size measuring.measurement measuring.pure measuring.repr_shape "
        "measuring.walk figures.counters figures.layout figures.origins figures.summary advice.advice "
        "advice.adviser advice.brokers advice.in_force advice.plans api.parse views.advice_text "
        "views.check views.diff views.report views.watch"
    )
    code = (
        f"import sys, {', '.join('celery_argsize.' + name for name in pure.split())}\n"
        "print(sorted({'celery', 'redis', 'prometheus_client'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_uuid_and_decimal_are_not_mistaken_for_their_text() -> None:
    identity = uuid.UUID("12345678-1234-5678-1234-567812345678")
    for value in (identity, [identity] * 3, {"a": str(identity), "b": identity}, decimal.Decimal("1.10")):
        assert measure_json_size(value) == len(kombu_dumps(value, separators=(",", ":")))
    assert measure_json_size([str(identity)]) == len(json.dumps([str(identity)]))
