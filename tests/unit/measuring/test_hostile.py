"""Arguments whose own code lies, raises or never ends: no exception reaches a task, and no value reaches a log.

``FUZZ`` sets how many arguments are made up: FUZZ=100000 make test ARGS="-k fuzzed --timeout 0" takes 14 minutes.
"""

from __future__ import annotations

import enum
import json
import logging
import os
import time
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, signals
from celery.app.trace import build_tracer
from celery.utils.saferepr import saferepr
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from kombu.utils.json import JSONEncoder
from support.hostile import (
    ENDLESS,
    MARK,
    Growing,
    MarkedError,
    Renewing,
    endless,
    endless_pairs,
    values,
)
from support.servers import compact

from celery_argsize import settings as config
from celery_argsize.figures.counters import rules_of
from celery_argsize.measuring import pure
from celery_argsize.measuring.cuts import MAX_HEADER, read_header
from celery_argsize.measuring.foreign import MAX_YIELDED
from celery_argsize.measuring.json_size import Size, Walked
from celery_argsize.measuring.measurement import NAME_BYTES
from celery_argsize.measuring.repr_shape import measure_shape
from celery_argsize.measuring.walk import compiled
from celery_argsize.worker.notes import LocalNotes
from celery_argsize.worker.recorder import Recorder
from celery_argsize.worker.shared_counters import SharedCounters

FUZZ = int(os.environ.get("FUZZ", "3000"))
#: Fuzzed arguments in one example.
BATCH = 25

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.figures.counters import TaskStats

# -- what is tested against ---------------------------------------------------------------------------------------


class Oracle(JSONEncoder):
    """kombu's encoder with sets and Enums. It gives up when the code of objects yields too much."""

    left = MAX_YIELDED

    def default(self, o: Any) -> Any:
        self.left -= 1
        kind = type(o)
        if self.left < 0 or is_endless(o):
            raise TimeoutError
        if not hasattr(kind, "__json__"):
            for base in (set, frozenset):
                if issubclass(kind, base):
                    return list(base.__iter__(o))
            if isinstance(kind, enum.EnumMeta):
                return o.value
        return super().default(o)


def is_endless(value: Any) -> bool:
    """Whether json might take all that an endless container yields, so that there is nothing to compare with."""
    todo, seen = [value], set()
    while todo:
        found = todo.pop()
        kind = type(found)
        base = next((base for base in (dict, list, tuple) if issubclass(kind, base)), None)
        if base is None or id(found) in seen:
            continue
        seen.add(id(found))
        asked = "items" if base is dict else "__iter__"
        if next(vars(kind)[asked] for kind in kind.__mro__ if asked in vars(kind)) in ENDLESS:
            return base is not dict or dict.__len__(found) > 0
        todo += dict.values(found) if base is dict else base.__iter__(found)
    return False


def oracle(value: Any) -> Size | None:
    try:
        text = json.dumps(value, cls=Oracle, ensure_ascii=False, separators=(",", ":"))
        return Size(len(text), len(text.encode("utf-8", "surrogatepass")))
    except Exception:  # noqa: BLE001 - foreign code raises what it likes
        return None


def has_endless(value: Any) -> bool:
    """Whether saferepr might not end."""
    todo, seen = [value], set()
    while todo:
        found = todo.pop()
        kind = type(found)
        if id(found) in seen:
            continue
        seen.add(id(found))
        if ENDLESS & {method for method in vars(kind).values() if callable(method)}:
            return True
        for base in (dict, list, tuple, set, frozenset):
            if issubclass(kind, base):
                todo += base.__iter__(found)
                todo += dict.values(found) if base is dict else ()
    return False


# -- 100,000 of them ----------------------------------------------------------------------------------------------

headers = st.one_of(
    st.none(),
    st.just("saferepr"),
    st.text("()[]{}',.:\\\"b <1N", max_size=60).map(lambda text: f"({text}...)"),
    st.sampled_from(
        ["(...)", "({...},)", "('...", "(<x>, ...)", "('a...',)", "(1, ...)", "{'k': ...}", MARK, "", 5, [MARK]]
    ),
)


def header_of(part: Any, kind: Any, limit: int, levels: int) -> Any:
    if kind != "saferepr":
        return kind
    if has_endless(part):
        return "(" + MARK + ", ...)"
    try:
        return saferepr(part, limit, levels)
    except Exception:  # noqa: BLE001 - foreign code raises what it likes
        return None


class Lines(logging.Handler):
    """All that any logger writes, with all attributes of the records."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text: list[str] = []
        self.plain = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        self.text.append(self.plain.format(record) + str(vars(record)))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, root = Lines(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.setLevel(level)
    root.removeHandler(handler)


class Traced:
    """A task that Celery traces as a worker does, measured by a real recorder."""

    def __init__(self) -> None:
        self.app = Celery("hostile", broker="memory://", set_as_current=False)
        resolved = config.resolve({"large_task_chars": 0}, self.app)
        rules = rules_of(resolved)
        self.counters = SharedCounters(rules, 10)
        self.notes = LocalNotes()
        self.recorder = Recorder(self.app, resolved, rules, self.counters, self.notes)
        self.seen: list[Any] = []
        task = self.app.task(name="hostile", ignore_result=True, shared=False)(self.body)
        self.tracer = build_tracer("hostile", task, app=self.app)

    def body(self, value: Any, k: Any) -> int:
        self.seen.append((value, k))
        return 4711

    def run(self, value: Any, kind: Any, limit: int, levels: int, origin: Any = "gen1@web-1") -> TaskStats:
        """What a run with *value* as its only argument has counted."""
        args, kwargs = (value,), {"k": value}
        request = {
            "id": "1",
            "task": "hostile",
            "argsrepr": header_of(args, kind, limit, levels),
            "kwargsrepr": header_of(kwargs, kind, limit, levels),
            "origin": origin,
            "is_eager": False,
            "delivery_info": {},
        }
        tracer: Any = self.tracer
        result = tracer("1", args, kwargs, request)
        assert (result.retval, result.info) == (4711, None)
        got = self.seen.pop()
        assert got[0] is value
        assert got[1] is value
        ((name, stats),) = self.counters.differences()
        assert (name, stats.counts["count"], stats.counts["errors"]) == ("hostile", 1, 0)
        return stats


def size_in(stats: TaskStats) -> Size | None:
    """The size of args that a run has counted."""
    counts = stats.counts
    assert counts["args.count"] + counts["args.unmeasurable"] == 1
    return Size(counts["args.chars"], counts["args.bytes"]) if counts["args.count"] else None


@pytest.fixture
def traced() -> Iterator[Traced]:
    traced = Traced()
    signals.task_prerun.connect(traced.recorder.on_task_prerun, weak=False, dispatch_uid="hostile")
    yield traced
    signals.task_prerun.disconnect(dispatch_uid="hostile")


@pytest.mark.parametrize(
    ("origin", "host"), [(["a@b"], "b']"), (None, ""), (7, ""), ("x@" + "y" * 10_000, "y" * 48 + "...")]
)
def test_whatever_is_said_to_be_the_sender_the_run_is_measured(traced: Traced, origin: Any, host: str) -> None:
    for _ in range(2):
        assert size_in(traced.run("x", "saferepr", 1024, 3, origin)) == (5, 5)
    hosts = [note["host"] for note in traced.notes.read()]
    assert hosts
    for said in hosts:
        assert said.startswith(host)
        assert len(said) <= 64


def test_what_is_remembered_of_names_is_short(traced: Traced) -> None:
    for number in range(20):
        traced.run("x", "saferepr", 1024, 3, f"{number}@" + "y" * 10_000)
    told = traced.recorder._told
    assert all(len(name) <= NAME_BYTES for name in (*told._tasks, *told._hosts))


@pytest.mark.slow
def test_fuzzed_arguments_reach_their_task_and_no_log(traced: Traced, lines: Lines) -> None:
    tried: Counter[str] = Counter()

    @settings(
        max_examples=max(1, FUZZ // BATCH), suppress_health_check=[*HealthCheck], database=None, phases=[Phase.generate]
    )
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        for _ in range(BATCH):
            value = data.draw(values)
            run = traced.run(
                value,
                data.draw(headers),
                data.draw(st.sampled_from([30, 1024, 131_072])),
                data.draw(st.sampled_from([3, 6])),
            )
            if is_endless(value):
                tried["endless"] += 1
                continue
            expected = oracle((value,))
            found = size_in(run)
            right = found == expected
            tried["right" if right and expected else "no JSON form" if right else "not measured"] += 1
            assert right or found is None, (found, expected)
        said = [*lines.text, *map(json.dumps, traced.notes.read())]
        leaked = [line for line in said if MARK in line]
        assert not leaked
        lines.text.clear()

    fuzz()
    if "FUZZ" in os.environ:
        print(dict(tried))  # noqa: T201 - who asks for a number gets one
    region = traced.counters.region()
    assert region is not None
    assert MARK.encode() not in bytes(region.words)
    assert sum(tried.values()) >= FUZZ // BATCH * BATCH
    assert tried["not measured"] < sum(tried.values()) / 100
    assert tried["right"] > sum(tried.values()) / 4


# -- one by one ---------------------------------------------------------------------------------------------------


class EndlessSet(set[Any]):
    __iter__ = endless


class EndlessDict(dict[Any, Any]):
    items = endless_pairs  # type: ignore[assignment]
    keys = values = __iter__ = endless  # type: ignore[assignment]


class EndlessList(list[Any]):
    __iter__ = endless


class Liar:
    __class__ = set  # type: ignore[assignment]
    __iter__ = endless


class Yields:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __json__(self) -> Any:
        return self.value


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("make", "same_as"),  # to show a value when a test fails may never end either
    [
        (lambda: EndlessSet({1, 2}), [1, 2]),
        (lambda: EndlessList([1, 2]), None),
        (lambda: [1, EndlessList()], None),
        (lambda: EndlessDict(a=1), None),
        (lambda: {"a": [EndlessDict(a=1)]}, None),
        (lambda: EndlessDict(), {}),  # noqa: PLW0108 - as the others
        (lambda: Yields(EndlessDict(a=1)), None),
        (lambda: Yields(Yields([1])), [1]),
        (lambda: Liar(), None),  # noqa: PLW0108
        (lambda: Growing(), None),  # noqa: PLW0108
        (lambda: Renewing(), None),  # noqa: PLW0108
    ],
)
def test_what_never_ends_is_measured_by_what_it_holds_or_not_at_all(make: Any, same_as: Any) -> None:
    expected = None if same_as is None else len(compact(same_as))
    size, walked = Walked(make()).size, Walked([make()])
    shape = measure_shape(walked, "[<x>, ...")
    verdict = read_header("({1, ...", (make(),)).verdict
    assert (size and size.chars) == expected
    assert (walked.size and walked.size.chars - 2) == expected
    assert (shape is None) == (expected is None)
    assert verdict in {"size", "custom"}


@pytest.mark.parametrize("stop", [SystemExit, KeyboardInterrupt, type("GreenletExit", (BaseException,), {})])
def test_what_ends_a_process_or_a_greenlet_passes_through(stop: type[BaseException], traced: Traced) -> None:
    class Stopping:
        def __json__(self) -> Any:
            raise stop(MARK)

    class Unshown(Yields):
        def __repr__(self) -> str:
            raise stop(MARK)

    with pytest.raises(stop):
        Walked([Stopping()])
    with pytest.raises(stop):
        measure_shape(Walked([Unshown(1)]), "[1, ...")
    with pytest.raises(stop):
        traced.recorder.on_task_prerun(task=traced.app.tasks["hostile"], task_id="1", args=(Stopping(),), kwargs={})


def test_an_object_with_a_json_form_but_no_repr_has_a_size() -> None:
    class Unrepresentable(Yields):
        def __repr__(self) -> str:
            raise MarkedError(MARK)

    walked = Walked([Unrepresentable(1)])
    assert walked.size == Size(3, 3)
    assert measure_shape(walked, "(<Unrepresentable ...") is None


@pytest.mark.parametrize("length", [200_000, 20_000])
def test_what_holds_itself_many_times_over_is_given_up(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pure, "MAX_CHARS", 1 << 20)  # the compiled module has its own
    value: Any = "x" * length
    for _ in range(6 if compiled is None else 14):
        value = [value, value, value]
    tracemalloc.start()
    try:
        assert Walked(value).size is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


def test_small_members_beside_big_ones() -> None:
    part = (["x" * 300_000, *range(50_000), "y" * 300_000, {"a": 1}, *range(50_000)],)
    mapping = {"blob": "x" * 300_000, **{str(n): n for n in range(50_000)}, "last": "y" * 300_000}
    for value in (part, mapping):
        assert Walked(value).size == oracle(value)


def test_keys_that_are_equal_only_sometimes_are_not_lost() -> None:
    class Key(str):
        __slots__ = ()
        alike = False

        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            return Key.alike

    value = {Key("a" * 300_000): 1, Key("b"): 2, Key("c"): 3, "blob": "x" * 300_000}
    Key.alike = True
    assert Walked(value).size in {None, oracle(value)}


HEADERS = {
    "brackets": "(" + "[" * 200_000,
    "balanced brackets": "(" + "[" * 100_000 + "]" * 100_000 + ")",
    "quotes": "(" + "'" * 200_000 + "...)",
    "a text without end": "('" + "a" * 200_000 + "...",
    "escaped quotes": "('...', '" + "\\'" * 100_000 + ")",
    "dots": "(" + "." * 200_000,
    "containers left out": "()" + "[...], " * 30_000,
    "texts that may be cut, in brackets": "(" + "['...', " * 25_000 + ")",
    "commas": "('...', " + ", " * 100_000 + ")",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_of_any_make_is_read_in_linear_time(kind: str) -> None:
    """Quadratic code would take a minute for some of these."""
    header = HEADERS[kind]
    nest: Any = 1
    for _ in range(300):
        nest = [1, nest]
    began = time.process_time()
    for value in (["x"], [nest], ["..."] * 30_000):
        read_header(header, value)
        measure_shape(Walked(value), header)
    assert time.process_time() - began < 10, "seconds"


def test_a_header_longer_than_any_limit_is_not_read() -> None:
    assert read_header("(" + "1, " * (MAX_HEADER // 3) + "...)", (1, 2)).verdict == "unknown"
