"""Strategies of hypothesis for hostile arguments: values with code of their own that raises, lies or never ends."""

from __future__ import annotations

import enum
import math
import sys
from collections import OrderedDict, defaultdict
from datetime import date, datetime
from decimal import Decimal
from itertools import count, repeat
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

#: Part of every text, repr and exception below. If it turns up in a log or in Redis, a value leaked.
MARK = "sesame4711"

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class MarkedError(Exception):
    pass


EXCEPTIONS = (
    MarkedError,
    RecursionError,
    MemoryError,
    StopIteration,
    KeyError,
    AttributeError,
    OverflowError,
    lambda text: UnicodeDecodeError("utf-8", text.encode(), 0, 1, text),
)


def raising(make: Any) -> Callable[..., Any]:
    def method(*_: Any, **__: Any) -> Any:
        raise make(MARK)

    return method


def returning(result: Any) -> Callable[..., Any]:
    return lambda *_: result


def endless(*_: Any) -> Iterator[Any]:
    return repeat(MARK)


def endless_pairs(*_: Any) -> Iterator[Any]:
    return ((f"{MARK}{n}", n) for n in count())


class Growing:
    """Its JSON form is two more of its kind, which are 2 ** 40 objects in all."""

    def __init__(self, depth: int = 40) -> None:
        self.depth = depth

    def __json__(self) -> Any:
        return [Growing(self.depth - 1), Growing(self.depth - 1)] if self.depth else MARK


class Renewing:
    def __json__(self) -> Any:
        return Renewing()


def itself(self: Any, *_: Any) -> Any:
    return self


#: Methods whose results may never end. An object that is its own iterator is one of them.
ENDLESS = {endless, endless_pairs, itself}
RESULTS: tuple[Callable[..., Any], ...] = (
    *map(raising, EXCEPTIONS),
    endless,
    endless_pairs,
    itself,
    lambda *_: MARK,
    lambda *_: MARK * 50_000,
    lambda *_: -1,
    lambda *_: 10**20,
    lambda *_: True,
    lambda *_: None,
    lambda *_: NotImplemented,
    lambda *_: [MARK] * 300,
    lambda *_: Growing(),
    lambda *_: Renewing(),
    lambda *_: math.nan,
)
METHODS = tuple(
    "__repr__ __str__ __len__ __iter__ __eq__ __hash__ __bool__ __getitem__ __contains__ __int__ __float__ __format__ "  # noqa: SIM905 - a list would take 35 lines
    "__json__ __reduce__ __reduce_ex__ __getattr__ __next__ __index__ items keys values isoformat hex replace encode "
    "count decode value name".split()
)
BASES: dict[type, tuple[Any, ...]] = {
    object: (),
    str: (f"{MARK} it's",),
    bytes: (MARK.encode(),),
    int: (4711,),
    float: (0.5,),
    dict: ({MARK: 1, "b": [2]},),
    OrderedDict: ({MARK: 1},),
    list: ([MARK, 2],),
    tuple: ((MARK, 2),),
    set: ({MARK},),
    frozenset: ({MARK, 3},),
    Decimal: ("1.50",),
    datetime: (2026, 11, 21),
    date: (2026, 11, 21),
    Exception: (MARK,),
}
LIES = (dict, list, set, str, int, datetime, date, Decimal, enum.Enum, bytes)


class Trap:
    """A descriptor that raises when it is read."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def __get__(self, *_: Any) -> Any:
        raise self.make(MARK)


@st.composite
def hostile(draw: st.DrawFn) -> Any:
    """An object of a class made for it, with methods that raise, lie or never end."""
    base = draw(st.sampled_from([*BASES]))
    names = draw(st.lists(st.sampled_from(METHODS), max_size=4, unique=True))
    body: dict[str, Any] = {}
    for name in names:
        body[name] = draw(st.sampled_from(RESULTS))
        if draw(st.booleans()) and not name.startswith("__"):
            body[name] = Trap(draw(st.sampled_from(EXCEPTIONS)))
    namespace: dict[str, Any] = {}
    if draw(st.integers(0, 3)) == 0:
        false_class = draw(st.sampled_from([*map(returning, LIES), *map(raising, EXCEPTIONS)]))
        namespace["__class__"] = property(false_class)
    made = type("Hostile", (base,), namespace)
    value = made(*BASES[base])
    for name, method in body.items():  # set after the object was made, as making it is not under test
        setattr(made, name, method)
    return value


def deep(levels: int, wrap: Callable[[Any], Any], inside: Any = MARK) -> Any:
    for _ in range(levels):
        inside = wrap(inside)
    return inside


def in_itself(value: Any) -> Any:
    value.append(value)
    return value


def around(value: dict[str, Any]) -> Any:
    value["again"] = [value]
    return value


class Color(enum.Enum):
    RED = MARK


class Int(enum.IntEnum):
    ONE = 1


texts = st.text(max_size=30).map(lambda text: MARK + text)
plain = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats(),
    texts,
    st.sampled_from([5000, 4300, 400, 64]).map(lambda digits: -(10**digits)),
    st.sampled_from(["\ud800" + MARK, MARK + "\udfff\ud800", math.nan, -math.inf, 2**64]),
    st.sampled_from([1e-5, 5e-324, 1.7976931348623157e308, Color.RED, Int.ONE, MARK.encode(), b"\xff" + MARK.encode()]),
    st.binary(max_size=20) | st.datetimes() | st.decimals() | st.uuids(),
)
odd = st.sampled_from(
    [
        lambda: deep(100_000, lambda value: [value]),
        lambda: deep(100_000, lambda value: {"a": value}),
        lambda: deep(900, lambda value: (value,)),
        lambda: in_itself([MARK]),
        lambda: around({MARK: 1}),
        lambda: [around({MARK: 1})] * 3,
        lambda: {math.nan: MARK, float("nan"): 2},
        lambda: {(1, MARK): 1},
        lambda: {None: MARK, True: 1, 2: 3, 0.5: 4},
        lambda: [MARK] * 100_000,
        lambda: [*range(100_000), MARK],
        lambda: {MARK + str(n): n for n in range(100_000)},
        lambda: [{"a": MARK}] * 3000,
        lambda: defaultdict(list, {MARK: [1]}),
        lambda: bytearray(MARK.encode()),
        lambda: memoryview(MARK.encode()),
        lambda: range(10**9),
        lambda: map(str, count()),
        lambda: (MARK for _ in count()),
        lambda: type,
        lambda: sys,
        Growing,
        Renewing,
        lambda: MarkedError(MARK),
    ]
).map(lambda make: make())
values = st.recursive(
    st.integers(0, 49).flatmap(lambda n: odd if n == 25 else plain if n < 15 else hostile()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=4,
)
