"""The two walks through a value, compared with each other and with what json and saferepr write; and the two ways to
count a run.

To run more examples: FUZZ=1000000 .venv/bin/python -m pytest tests/unit/measuring/test_twins.py -n 2 --timeout 0
"""

from __future__ import annotations

import importlib
import json
import math
import os
import platform
import random
import struct
import subprocess
import sys
import sysconfig
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from celery.utils.saferepr import saferepr
from hypothesis import example, given, settings, strategies as st
from kombu.utils.json import dumps, loads
from support.servers import compact
from support.tricky_texts import TRICKY

from celery_argsize import measure_json_size
from celery_argsize.figures.counters import Rules, Tally, TaskStats
from celery_argsize.figures.layout import CUT, LARGE_PART, LONG, NEW_MAXIMUM
from celery_argsize.measuring import pure
from celery_argsize.measuring.cuts import CUTS, read_header
from celery_argsize.measuring.foreign import add_reprs, json_size
from celery_argsize.measuring.measurement import Measurement, measure_part
from celery_argsize.measuring.walk import Figures, compiled
from celery_argsize.settings import DEFAULT_BUCKETS
from celery_argsize.worker.region import UNSETTLED
from celery_argsize.worker.shared_counters import SharedCounters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery_argsize.worker.region import Region

    Walk = Callable[[Any, list[Any]], tuple[int, ...] | None]


def built() -> Any:
    """The compiled module, also if CELERY_ARGSIZE_PURE leaves it out; ``None`` where there is none."""
    usual = platform.python_implementation() == "CPython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
    try:
        return importlib.import_module("celery_argsize.measuring._compiled")
    except ImportError:
        if usual and os.environ.get("CI") == "true":
            raise  # CI builds it
        return None


BUILT = built()
needs_both = pytest.mark.skipif(BUILT is None, reason="the compiled module was not built")
needs_compiled = pytest.mark.skipif(compiled is None, reason="the compiled module was not built, or is not wanted")
WALKS: dict[str, Walk] = {"pure": pure.walk} | ({} if BUILT is None else {"compiled": BUILT.walk})
each_walk = pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)


def examples(usual: int) -> int:
    return int(os.environ.get("FUZZ", usual))


# -- values ---------------------------------------------------------------------------------------------------------

SPECIAL = "\"'\\\x00\x07\b\t\n\v\f\r\x0e\x1f\x7f\x80\xff\u07ff\u0800\ud800\udfff\uffff\U00010000\U0010ffff"
texts = st.text(max_size=40) | st.text(f"{SPECIAL}a ,:[]{{}}-1.e", max_size=40) | st.text("ab", max_size=80)
floats = st.floats() | st.builds(round, st.floats(-1e6, 1e6), st.integers(0, 6))
ints = st.integers() | st.integers(-100, 100) | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**30])
scalars = st.none() | st.booleans() | ints | floats | texts
keys = texts | ints | st.booleans() | st.none() | st.floats()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=6) | st.lists(inner, max_size=4).map(tuple) | st.dictionaries(keys, inner, max_size=5)
    ),
    max_leaves=30,
)


def pairs(aside: list[Any]) -> list[tuple[str, int]]:
    """The leaves in *aside*, each with its level, in some order."""
    return sorted(zip(map(repr, aside[::2]), aside[1::2], strict=True))


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def counted(value: Any, level: int = 1) -> tuple[int, int, int, int, int]:
    """Levels, commas, keys, containers and lists of one."""
    if not isinstance(value, (list, tuple, dict)):
        return 0, 0, 0, 0, 0
    inner = [counted(member, level + 1) for member in (value.values() if isinstance(value, dict) else value)]
    levels, *sums = zip(*inner, strict=True) if inner else ((0,), (), (), (), ())
    commas, keys, containers, singles = map(sum, sums)
    return (
        1 + max(levels),
        commas + max(0, len(value) - 1),
        keys + (len(value) if isinstance(value, dict) else 0),
        containers + 1,
        singles + (len(value) == 1 and isinstance(value, list)),
    )


def whole(walk: Walk, value: Any) -> Figures:
    """The figures of *value*, with the leaves that *walk* set aside."""
    aside: list[Any] = []
    found = walk(value, aside)
    assert found is not None
    figures = add_reprs(Figures(*found), aside)
    chars, size = json_size(aside)
    return figures._replace(chars=figures.chars + chars, bytes=figures.bytes + size)


# -- the walks ------------------------------------------------------------------------------------------------------


@needs_both
@settings(max_examples=examples(3000))
@given(values)
@example([-0.0, 0.0, 1e-4, 1e-5, 1e11, 99999999999.9999, 5e-324, math.nan, math.inf, -math.inf])
@example({math.inf: 1, -math.inf: 2, math.nan: 3, None: 4, True: 5, False: 6, -1.5: 7, 10**30: 8})
def test_the_twins_agree_on_small_values(value: Any) -> None:
    aside: tuple[list[Any], list[Any]] = ([], [])
    assert BUILT.walk(value, aside[0]) == pure.walk(value, aside[1])
    assert pairs(aside[0]) == pairs(aside[1])


@each_walk
@settings(max_examples=examples(1500))
@given(value=values)
@example(value=[(1,), ((),), {"a": ([],)}, [[1]]])
@example(value={2: "'", 2.5: '"', None: "\\", True: "\x7f"})
def test_json_and_saferepr_write_what_each_walk_counts(walk: Walk, value: Any) -> None:
    found = whole(walk, value)
    text, shown = compact(value), saferepr(value, None, 0)
    assert found.chars == len(text)
    assert found.bytes == len(text.encode("utf-8", "surrogatepass"))
    assert found.need == len(shown)
    assert found.escaped == len(json.dumps(shown)) - 2
    assert (found.levels, found.commas, found.keys, found.containers, found.singles) == counted(value)


@needs_both
@settings(max_examples=examples(500))
@given(value=values, times=st.integers(pure.SMALL, 2 * pure.SMALL), flat=st.booleans())
@example(value={"1": 1, "true": 2, "x": 3}, times=pure.SMALL, flat=False)
@example(value={1: 1, 2.5: 2, None: 3}, times=pure.SMALL, flat=False)
@example(value=["\\\\", '\\"', '",1:', '"', ',"1":', "\\u0000", "\x00\\u"], times=pure.SMALL, flat=True)
def test_of_a_large_value_the_pure_twin_gives_a_bound(value: Any, times: int, flat: bool) -> None:  # noqa: FBT001
    large = [value] * times if flat else {f"k{n}": value for n in range(times)}
    exact, bound = whole(BUILT.walk, large), whole(pure.walk, large)
    assert bound._replace(need=0, escaped=0) == exact._replace(need=0, escaped=0)
    assert exact.need <= bound.need <= 1.1 * exact.need
    assert exact.escaped <= bound.escaped <= 1.1 * exact.escaped


@needs_both
@pytest.mark.slow
def test_a_dict_of_a_million_keys() -> None:
    for value in ({f"key {n}": n for n in range(1_000_000)}, dict.fromkeys(range(1000000), "é")):
        exact, bound = whole(BUILT.walk, value), whole(pure.walk, value)
        text = compact(value)
        assert exact.chars == bound.chars == len(text)
        assert exact.bytes == bound.bytes == len(text.encode())
        assert exact.keys == bound.keys == 1_000_000
        assert exact.need == len(repr(value))
        assert exact.need <= bound.need <= 1.1 * exact.need


@each_walk
@pytest.mark.parametrize("more", [0, 400])
def test_levels_beyond_a_thousand_have_no_size(walk: Walk, more: int) -> None:
    limit = sys.getrecursionlimit()
    try:
        for limit_here in (limit, 5000):
            sys.setrecursionlimit(limit_here)
            for levels in (500, 998, 999, 1000):
                found = walk([nested(levels - 1), *[1] * more], [])
                if found is None:  # the pure twin needs frames
                    assert walk is pure.walk
                    assert limit_here == limit
                    assert levels > 900
                else:
                    assert found[:2] == (2 * levels + 2 * more, 2 * levels + 2 * more)
                    assert found[4] == levels
            for levels in (1001, 1002, 1999, 10_000):
                assert walk([nested(levels - 1), *[1] * more], []) is None
                assert walk({"a": (nested(levels - 2),), **{str(n): 1 for n in range(more)}}, []) is None
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize("name", WALKS)
@pytest.mark.parametrize("times", [1, 2, 400])
@pytest.mark.parametrize("more", [0, 400])
def test_a_list_that_holds_itself_has_no_size(name: str, times: int, more: int) -> None:
    """In a process of its own, as C code that never ends could not be interrupted."""
    code = f"""
from celery_argsize.measuring import {"pure" if name == "pure" else "_compiled"} as twin
value = [0] * {more}
value += [value] * {times}
around = {{"a": [1]}}
around["a"] += [around] * {times} + [0] * {more}
print(twin.walk(value, []), twin.walk((around,), []))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout == "None None\n"


def some_floats(number: int) -> Iterable[float]:
    rng = random.Random(16)
    for _ in range(number):
        size = 10.0 ** rng.randint(-8, 20)
        yield rng.choice((1, -1)) * round(rng.random() * size, rng.randint(0, 6))
        yield rng.random() * size
        yield rng.randint(-(10**6), 10**6) / 10 ** rng.randint(0, 6)
        yield struct.unpack("d", rng.randbytes(8))[0]
        yield rng.random() * 5e-308
        yield math.nextafter(round(rng.random() * size, 4), rng.choice((0, math.inf)))
    yield from (math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, sys.float_info.max, sys.float_info.min)
    for power in range(-25, 25):
        for near in (10.0**power, -(10.0**power), 0.5 * 10.0**power):
            yield from (near, math.nextafter(near, 0), math.nextafter(near, math.inf))


@each_walk
def test_floats_of_all_kinds(walk: Walk) -> None:
    for number in some_floats(10_000):
        found = walk([number], [])
        shown = len(repr(number)) + 2
        assert found is not None
        assert found[:4] == (len(compact([number])),) * 2 + (shown,) * 2, number


@each_walk
def test_ints_around_powers(walk: Walk) -> None:
    powers = [sign * base**power for sign in (1, -1) for base, most in ((10, 25), (2, 70)) for power in range(most)]
    for number in {power + near for power in powers for near in range(-3, 4)}:
        aside: list[Any] = []
        found = walk({number: [number]}, aside)
        assert found is not None
        if -(2**63) <= number < 2**63:
            assert not aside
            assert found[:4] == (2 * len(str(number)) + 7,) * 2 + (2 * len(str(number)) + 6,) * 2
        else:
            assert aside == [number, 0, number, 3]


@each_walk
@pytest.mark.parametrize("filler", "xé€🎵")
def test_each_special_character_at_each_place(walk: Walk, filler: str) -> None:
    limits = (8, 32, 64, 128, 224, 4096, 8192)
    lengths = {*range(1, 20), *(limit + near for limit in limits for near in (-1, 0, 1, 3, 9))}
    for length in lengths:
        edges = {limit + near for limit in (0, *limits, length) for near in range(-9, 10)}
        for place in {*range(min(length, 140))} | {edge for edge in edges if 0 <= edge < length}:
            for special in SPECIAL if length < 130 else SPECIAL[place % 5 :: 5]:
                text = filler * place + special + filler * (length - place - 1)
                written, shown = compact(text), "'" + text.replace("'", "\\'") + "'"
                found = walk(text, [])
                assert found is not None
                assert found[:4] == (
                    len(written),
                    len(written.encode("utf-8", "surrogatepass")),
                    len(shown),
                    len(json.dumps(shown)) - 2,
                ), (length, place, special)


def test_values_that_another_thread_changes() -> None:
    """All members have the same size, so any moment has a size that can be right."""
    array: list[Any] = []
    mapping: dict[str, Any] = {}
    ended = threading.Event()

    def change() -> None:
        rng = random.Random(1)
        while not ended.is_set():
            for _ in range(100):
                if rng.random() < 0.5:
                    array.append(["x"])
                    mapping[f"{rng.randrange(1000):03}"] = ["x"]
                elif array:
                    array.pop(rng.randrange(len(array)))
                    mapping.pop(f"{rng.randrange(1000):03}", None)
                    array[:] = [["x"] for _ in array]
            if len(array) > 1000:
                array.clear()
                mapping.clear()

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=change)
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            for value, member in ((array, 6), (mapping, 12)):
                chars = measure_json_size(value)
                assert chars in {-1, 2} or (chars - 1) % member == 0
    finally:
        ended.set()
        thread.join()
        sys.setswitchinterval(interval)


# -- counting -------------------------------------------------------------------------------------------------------

RULES = Rules(1024, DEFAULT_BUCKETS)
TASK = "music.scan"
scripts = st.sampled_from(["...", "'", "\\", "\\'", ", ", "[", "]", "(", ")", "{", "}", ", ...", "'...", "...'"]) | (
    st.sampled_from(["'...'", "[...]", "<", ">", ",)", "x", "N", "T", "F", "1", "-", "b'", ",", "\0", "é", "🎵", ": "])
)
tricky = st.sampled_from([*TRICKY, "<a>", "b)", ",)"])
long_texts = st.builds(lambda word, length: f"{word} {'x' * length}", tricky, st.integers(0, 300) | st.just(3000))
members = st.recursive(
    st.none() | st.booleans() | ints | st.floats() | tricky | texts | long_texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(tricky, inner, max_size=4)
    ),
    max_leaves=15,
)
args = st.lists(members, max_size=4).map(tuple)
kwargs = st.dictionaries(st.text("abc", min_size=1, max_size=4), members, max_size=4)
limits = st.integers(50, 300) | st.just(1024)


@st.composite
def headers_of(draw: st.DrawFn, part: Any) -> str:
    """Mostly what saferepr makes of *part* or of another value, cut or not, and changed or not."""
    limit, levels = draw(limits), draw(st.integers(0, 6))
    kind = draw(st.integers(0, 5))
    other = part
    if kind == 1:
        other = draw(kwargs if isinstance(part, dict) else args)
    elif kind == 2:  # begins the same
        more: Any = draw(kwargs if isinstance(part, dict) else args)
        other = {**dict([*part.items()][:1]), **more} if isinstance(part, dict) else (*part[:1], *more)
    header = str(saferepr(other, limit, levels))
    if kind == 3:  # a text of the caller's own
        ends = "{}" if isinstance(part, dict) else draw(st.sampled_from(["()", "[]"]))
        own = draw(st.text("()[]{}',.:\\\"b <1NTFni\0é", max_size=60))
        header = ends[0] + own + draw(st.sampled_from(["", "...", "'...'", "...'", ", ..."])) + ends[1]
    if kind >= 4:
        for _ in range(draw(st.integers(1, 3))):
            start = draw(st.integers(0, len(header)) | st.integers(max(0, len(header) - 10), len(header)))
            end = min(len(header), start + draw(st.integers(0, 3)))
            header = header[:start] + draw(scripts) + header[end:]
    if kind >= 2 and draw(st.booleans()):  # as long as the whole repr
        missing = len(saferepr(part, None, 0)) - len(header)
        header = header[:2] + "x" * missing + header[2:]
    return header


@st.composite
def runs(draw: st.DrawFn) -> tuple[Any, str, Any, str]:
    sent = draw(args), draw(kwargs)
    argsrepr, kwargsrepr = (draw(headers_of(part)) for part in sent)
    came = loads(dumps(sent)) if draw(st.booleans()) else sent
    return (tuple(came[0]) if draw(st.booleans()) else came[0]), argsrepr, came[1], kwargsrepr


def count_run(region: Region, run: tuple[Any, str, Any, str]) -> int:
    """Count *run* as a worker does. Returns what there is to tell about it."""
    tell = region.count(TASK, *run)
    return update(region, run) if tell == UNSETTLED else tell


def update(region: Region, run: tuple[Any, str, Any, str]) -> int:
    """Count *run* as Python measures it."""
    measurement = measurement_of(run)
    return region.update(TASK, RULES.layout.changes(measurement.args, measurement.kwargs))


def measurement_of(run: tuple[Any, str, Any, str]) -> Measurement:
    return Measurement(TASK, "", measure_part(*run[:2]), measure_part(*run[2:]), 0.0)


def facts(stats: TaskStats) -> tuple[dict[str, int], dict[str, int]]:
    return (
        {name: number for name, number in stats.counts.items() if number},
        {name: extreme.value for name, extreme in stats.maxima.items() if extreme.value},
    )


def region_of(counters: SharedCounters) -> Region:
    region = counters.region()
    assert region is not None
    return region


#: Its repr is not ASCII, and has quotes.
ODD_ZONE = datetime(2026, 5, 17, tzinfo=timezone(timedelta(0), 'É"x'))


@settings(max_examples=examples(300))
@given(st.lists(st.lists(runs(), min_size=1, max_size=4), min_size=1, max_size=3))
@example([[((), "()", {}, "{}")]])
@example([[([], "[]", {"a": 1}, "{'a': 1}")], [((), "()", {}, "{}")] * 2])
@example([[(["x" * 3000, ODD_ZONE], f"['{'x' * 990}...', ...]", {}, "{}")]])
@example([[(("x" * 3000,), "('xxx...',)", {"a": [1] * 2000}, "{'a': [1, 1, 1, ...]}")]] * 2)
def test_shared_counters_change_as_a_tally_does(epochs: list[list[tuple[Any, str, Any, str]]]) -> None:
    counters, others = SharedCounters(RULES, 10), SharedCounters(RULES, 10)
    region, other = region_of(counters), region_of(others)
    for epoch in epochs:
        tally = Tally(10)
        for run in epoch:
            assert count_run(region, run) == update(other, run)
            tally.add(measurement_of(run), RULES)
        ((name, stats),) = counters.differences()
        assert name == TASK
        assert facts(stats) == facts(tally.tasks[TASK])
        counters.begin_epoch()
        others.begin_epoch()


@needs_compiled
@settings(max_examples=examples(3000))
@given(runs())
@example(((12345,), "(Texttt)", {}, "{}"))
@example(((None, "x" * 100), "(Nope, 'see...')", {}, "{}"))
@example(((123,), "(\0abc)", {}, "{}"))
@example(((None, "x" * 100), "(N, 'see...')", {}, "{}"))
@example(((True, "x" * 100), "(Tapes of 7 songs, ...)", {}, "{}"))
@example((([[True, False, 0]], [1]), "([[Tr..., ...]])", {}, "{}"))
@example(([True], "(None,)", {}, "{}"))
@example(((6, "x" * 100), "(6, [...')", {}, "{}"))
@example(([{}, "x" * 100], "({...'})", {}, "{}"))
@example(((), "()", {"a": "x" * 100}, "{'}(b{'N.F\\{TTi1\0n,(...'}"))
def test_what_the_compiled_module_settles_read_header_would_say(run: tuple[Any, str, Any, str]) -> None:
    for value, header in ((run[0], run[1]), (run[2], run[3])):
        counters = SharedCounters(RULES, 1)
        region = region_of(counters)
        alone = ((), "()", value, header) if isinstance(value, dict) else (value, header, {}, "{}")
        told = region.count(TASK, *alone)
        if told == UNSETTLED:
            continue
        reading = read_header(header, value)
        ((_, stats),) = counters.differences()
        name = "kwargs" if isinstance(value, dict) else "args"
        verdicts = {field.partition(".")[2] for field, number in stats.counts.items() if number and ".by_" in field}
        assert reading.verdict == ("size" if verdicts else "intact"), header
        assert verdicts <= {"by_size"}
        assert stats.counts["truncated"] == (reading.verdict in CUTS)
        assert stats.counts[f"{name}.count"] == 1
        part = measure_part(value, header)
        assert part.size is not None
        bits = told >> (8 if isinstance(value, dict) else 0)
        assert bool(bits & LARGE_PART) == (part.size.chars > RULES.large_task_chars)
        assert bool(bits & CUT) == part.truncated
        assert bool(bits & LONG) == (not part.truncated and (part.header > 1024 or part.levels > 3))
        assert bool(bits & NEW_MAXIMUM) == bool(part.size.chars)
