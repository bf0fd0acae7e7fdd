"""Reading a header back: held against the value it was made of, whatever Celery left of it."""

from __future__ import annotations

import ast
import json
import math
from datetime import date, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from celery.utils.saferepr import saferepr
from hypothesis import example, given, settings, strategies as st

from celery_argsize.api.parse import CUT, MAX_DEPTH, MAX_PATHS, UNREADABLE, parse_repr

tricky = st.sampled_from(
    [
        "it's",
        "'",
        "\\",
        "\\'",
        "'\\",
        "\\\\",
        "C:\\songs\\",
        "dogs', cats",
        "', '",
        "\\', \\'",
        "]",
        ", ...]",
        "a...b",
        "... ",
        "...",
        "Loading...",
        "'...",
        "(",
        "UUID('",
        "Decimal('",
        '"',
        '\\"',
        "\n",
        "{'a': 1}",
        "b'x'",
        "None",
        CUT,
        UNREADABLE,
        "Bearer " + "x" * 100,
        "a b " * 30,
    ]
)
texts = st.text(max_size=20) | st.text("'\\,. :])}ab", max_size=12) | tricky
zones = st.none() | st.just(timezone.utc) | st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
moments = st.one_of(
    st.datetimes(timezones=zones),
    st.datetimes().map(lambda moment: moment.replace(fold=1, tzinfo=timezone(timedelta(hours=1), "CET"))),
    st.dates(),
    st.times(timezones=zones),
    st.timedeltas(),
)
#: In bytes, saferepr escapes no quote: with one in them, they are beyond reading.
blobs = st.binary(max_size=12) | texts.map(lambda text: text.replace("'", "").encode("utf-8", "replace"))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**60), 10**60),
    st.floats(),
    texts,
    blobs.filter(lambda blob: b"'" not in blob),
    moments,
    st.decimals(allow_nan=False),
    st.uuids(),
)
hashables = st.recursive(
    scalars.filter(lambda value: value == value),  # noqa: PLR0124 - NaN
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(texts | st.integers() | st.none() | hashables, inner, max_size=5),
        st.sets(hashables, max_size=4),
        st.frozensets(hashables, max_size=4),
    ),
    max_leaves=25,
)


def exact(value: Any) -> Any:
    """Something that is equal only for values that are, down to the types of their members."""
    if isinstance(value, dict):
        return dict, tuple((exact(key), exact(member)) for key, member in value.items())
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(exact, value))
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(map(exact, value))
    return type(value), repr(value)


def in_doubt(value: Any) -> bool:
    """Whether something in *value* may look cut, or like hex, though it is not."""
    if isinstance(value, dict):
        return any(in_doubt(key) or in_doubt(member) for key, member in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(in_doubt, value))
    if isinstance(value, bytes):
        shown = saferepr(value, None)[2:-1]
        return shown.endswith("...") or looks_hex(shown)
    return isinstance(value, str) and value.endswith("...")


def looks_hex(shown: str) -> bool:
    """Whether saferepr shows some bytes like this that are not UTF-8."""
    try:
        return bool(shown) and saferepr(bytes.fromhex(shown), None) == f"b'{shown}'"
    except ValueError:
        return False


@pytest.mark.slow
@settings(max_examples=1000)
@given(values)
@example(["a\\", "it's", "C:\\", "\\'"])
@example(([{"id": 1, "tags": ["rock"]}],))
def test_what_is_whole_is_the_original(value: Any) -> None:
    parsed = parse_repr(saferepr(value, None, 0))
    assert parsed.whole is not in_doubt(value)
    if parsed.whole:
        assert exact(parsed.value) == exact(value)
    else:
        check_copy(parsed.value, value, (), parsed.missing)


def check_copy(copy: Any, value: Any, path: tuple[int | str, ...], missing: tuple[tuple[int | str, ...], ...]) -> None:
    """Assert that *copy* is *value* for JSON, but where something is missing."""
    if path in missing or (isinstance(value, set) and (*path, CUT) in missing):  # a set that may be a dict
        return
    if isinstance(value, dict):
        assert type(copy) is dict
        members = {plain_key(key): (key, member) for key, member in value.items()}
        if len(members) < len(value):  # two keys have one name in JSON
            return
        if not any((*path, key) in missing for key in copy):
            assert list(copy) == list(members)
        for key, member in copy.items():
            if (*path, key) not in missing:
                check_copy(member, members[key][1], (*path, key), missing)
    elif isinstance(value, (list, tuple, set, frozenset)):
        assert type(copy) is list
        assert len(copy) == len(value) or (*path, len(copy) - 1) in missing
        for index, (mine, yours) in enumerate(zip(copy, value, strict=False)):
            check_copy(mine, yours, (*path, index), missing)
    else:
        assert exact(copy) == exact(plain(value))


def plain(value: Any) -> Any:
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(member) for member in value]
    if isinstance(value, bytes):
        return saferepr(value, None)[2:-1]
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, (Decimal, UUID, timedelta)) else value


def plain_key(key: Any) -> int | str:
    name = plain(key)
    return name if type(name) in {int, str} else json.dumps(name)


@settings(max_examples=2000)
@given(values, st.integers(1, 3000) | st.integers(1, 80), st.integers(1, 6))
@example(([{"id": 1, "tags": ["rock"]}],), 131_072, 3)
@example(({"auth": "Bearer " + "x" * 3000, "id": 5}, "it's"), 60, 3)
def test_what_is_cut_is_never_whole_and_the_rest_is_right(value: Any, limit: int, levels: int) -> None:
    text = saferepr(value, limit, levels)
    parsed = parse_repr(text)
    if text == saferepr(value, None, 0):
        assert exact(parsed) == exact(parse_repr(saferepr(value, None, 0)))
        return
    assert not parsed.whole
    json.dumps(parsed.value)
    check_copy(parsed.value, value, (), parsed.missing)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A repr from which something was taken, or into which something was put, here and there."""
    value = draw(values)
    text = draw(st.sampled_from([repr(value), saferepr(value, None, 0), saferepr(value, 80, 3)]))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        gone = draw(st.integers(0, 5))
        put = draw(st.text("[](){}'\",:. \\1a<", max_size=3) | st.sampled_from(["...", ", ...", "<Song object>", "b'"]))
        text = text[:at] + put + text[at + gone :]
    return text


@pytest.mark.slow
@settings(max_examples=1000)
@given(st.text() | st.text("[](){}'\",:.\\ 1aNb<>=-", max_size=60) | damaged())
@example("\x00")
@example("\ud800")
@example("b'\ud800'")
@example("{frozenset(): [1...], (): 2}")
def test_any_text_is_survived(text: str) -> None:
    parsed = parse_repr(text)
    if not parsed.whole or is_json(parsed.value):
        json.dumps(parsed.value)
    for path in parsed.missing:
        node = parsed.value
        for step in path:
            node = node[step]


def is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_json(member) for key, member in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(is_json, value))
    return value is None or isinstance(value, (str, int, float))


def test_the_famous_error_is_over() -> None:
    text = saferepr(([{"id": 1, "tags": ["rock"]}],), 1024, 3)
    with pytest.raises(TypeError, match="Object of type ellipsis is not JSON serializable"):
        json.dumps(ast.literal_eval(text))
    parsed = parse_repr(text)
    assert json.dumps(parsed.value) == '[[{"id": 1, "tags": "<cut>"}]]'
    assert parsed.missing == ((0, 0, "tags"),)
    assert not parsed.whole


@pytest.mark.parametrize(
    ("text", "value", "missing"),
    [
        # by depth
        ("(...)", CUT, [()]),
        ("(...,)", CUT, [()]),
        ("([...], {...}, (...,), frozenset({...}))", [CUT] * 4, [(0,), (1,), (2,), (3,)]),
        # by size, between two members
        ("[1, 2, ...]", [1, 2, CUT], [(2,)]),
        ("[1, 2, , ...]", [1, 2, CUT], [(2,)]),
        ("(, ...)", CUT, [()]),
        ("([, ...])", [CUT, CUT], [(0,), (1,)]),
        ("([1, ...],)", [[1, CUT]], [(0, 1)]),  # the comma says that there was one member
        ("([{'id': 1, ...}])", [[{"id": 1, CUT: CUT}, CUT], CUT], [(0, 0, CUT), (0, 1), (1,)]),
        ("{'a': 1, ...}", {"a": 1, CUT: CUT}, [(CUT,)]),
        ("{'a': , ...}", {"a": CUT, CUT: CUT}, [("a",), (CUT,)]),
        ("{'a', ...}", {"a": CUT, CUT: CUT}, [("a",), (CUT,)]),
        ("{'a': 1, 'b', ...}", {"a": 1, "b": CUT, CUT: CUT}, [("b",), (CUT,)]),
        ("{'b', 'a', ...}", ["b", "a", CUT], [(2,)]),
        ("{(1, ...)}", {'[1, "<cut>"]': CUT, CUT: CUT}, [('[1, "<cut>"]',), (CUT,)]),
        # by size, within a member
        ("123...", CUT, [()]),
        ("[12, 3...]", [12, CUT], [(1,)]),
        ("[-1...., N..., set()...]", [CUT] * 3, [(0,), (1,), (2,)]),
        ("(datetime.datetime(2026,..., 5)", [CUT, 5], [(0,)]),
        ("(5, UUID(...)", [5, CUT], [(1,)]),
        ("['it\\'s', UUID('12..., ...]", ["it's", CUT, CUT], [(1,), (2,)]),
        ("['cats\\', dogs', Decimal('1...]", ["cats', dogs", CUT], [(1,)]),
        ("{'Bearer...': 1, 'x': 'y...'}", {"Bearer...": 1, "x": "y..."}, [("Bearer...",), ("x",)]),
        ("{('a', ...): 1, 2: 3}", {'["a", "<cut>"]': 1, 2: 3}, [('["a", "<cut>"]',)]),
        ("[b'ab...', b'...']", ["ab...", "..."], [(0,), (1,)]),
        # by something else
        ("[1, {'a': 'b", [1, {"a": CUT, CUT: CUT}, CUT], [(1, "a"), (1, CUT), (2,)]),
        ("{'a': 1, 'b'", {"a": 1, "b": CUT, CUT: CUT}, [("b",), (CUT,)]),
        # Celery before 5.7 loses closers, or closes more than it has opened
        ("([1, ...)", [[1, CUT], CUT], [(0, 1), (1,)]),
        ("([1, ...}])", [[1, CUT], CUT], [(0, 1), (1,)]),
        ("(1, ...))", [1, CUT], [(1,)]),
        ("{'a': {, ...,)}}", {"a": CUT, CUT: CUT}, [("a",), (CUT,)]),
        # in doubt
        ("'Hello...'", "Hello...", [()]),
        ("[b'ff', b'6162', b'abc']", ["ff", "6162", "abc"], [(0,)]),
        # types that JSON lacks, around what is missing
        ("[..., (1, 2), ({2, 1}), b'x', set()]", [CUT, [1, 2], [2, 1], "x", []], [(0,)]),
        ("[Decimal('1.50'), datetime.date(2026, 1, 2), 1...]", ["1.50", "2026-01-02", CUT], [(2,)]),
        ("{None: 1, (1, 2): 2, 1.5: 3, 4: 5, ...}", {"null": 1, "[1, 2]": 2, "1.5": 3, 4: 5, CUT: CUT}, [(CUT,)]),
        ("{None: 1, 'null': 2, ...}", {"null": 1, CUT: CUT}, [("null",), (CUT,)]),
        ("{'<cut>', 'b', ...}", [CUT, "b", CUT], [(2,)]),
        ("{'a': ..., 'a': 1}", {"a": 1}, [()]),
    ],
)
def test_where_it_was_cut(text: str, value: Any, missing: list[tuple[int | str, ...]]) -> None:
    parsed = parse_repr(text)
    assert parsed.value == value
    assert parsed.missing == tuple(missing)
    json.dumps(parsed.value)


@pytest.mark.parametrize(
    "text",
    [
        *[None, b"[1]", 7, ["[1]"], "", " ", "\x00", "batch of 7 songs", "<Song object at 0x7f>", "id=7, x=8", "1, 2"],
        *["[1] and more", "[1]]", "[1)]x", "(1+2j)", "007", "1_000", "'a'b'", '"', "9" * 4301, "Infinity", "null"],
    ],
)
def test_what_is_no_repr(text: Any) -> None:
    assert parse_repr(text) == (UNREADABLE, ((),))


@pytest.mark.parametrize(
    ("text", "value", "missing"),
    [
        ("[1, <Song object at 0x7f>, 2]", [1, UNREADABLE, 2], [(1,)]),
        ("[<Song: Hey, Jude (1)>, 'x']", [UNREADABLE, "x"], [(0,)]),
        ("[<Song: It's>, <Song [...]>, <Song <a>, b>, 4]", [UNREADABLE] * 3 + [4], [(0,), (1,), (2,)]),
        ("{'song': Song('a, b', [1, 2]), 'x': 1}", {"song": UNREADABLE, "x": 1}, [("song",)]),
        ("{<Song: a>: 1, 'x': 2}", {UNREADABLE: 1, "x": 2}, [(UNREADABLE,)]),
        ("[1, " + "9" * 4301 + ", 2]", [1, UNREADABLE, 2], [(1,)]),
        ("[datetime.date(2026, 13, 1), 1]", [UNREADABLE, 1], [(0,)]),
        ("[datetime.timedelta(songs=1), UUID('1'), 1]", [UNREADABLE, UNREADABLE, 1], [(0,), (1,)]),
        ("[datetime.datetime(1, 1, 1, tzinfo=zoneinfo.ZoneInfo(key='Europe/Berlin')), 1]", [UNREADABLE, 1], [(0,)]),
        ("[Decimal('1E+9999999999999999999'), 1]", [UNREADABLE, 1], [(0,)]),
        ("[UUID(7), Decimal([]), datetime.date(key=1), 1]", [UNREADABLE] * 3 + [1], [(0,), (1,), (2,)]),
        ("[{[1]: 2}, {1, 'a': 2}, {'a': 'b': 1}, 1]", [UNREADABLE] * 3 + [1], [(0,), (1,), (2,)]),
        ("[1 2, 'a'b', (3), ), , 4]", [UNREADABLE, UNREADABLE, 3, UNREADABLE, UNREADABLE, 4], [(0,), (1,), (3,), (4,)]),
        ('[1, {"a": null}]', [1, {UNREADABLE: UNREADABLE}], [(1, UNREADABLE)]),
    ],
)
def test_a_member_that_cannot_be_made_again(text: str, value: Any, missing: list[tuple[int | str, ...]]) -> None:
    assert parse_repr(text) == (value, tuple(missing))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'a\\'", "a\\"),
        ("['a\\', 'it\\'s', '\\\\'', '\\']", ["a\\", "it's", "\\'", "\\"]),
        ("['a\\n', 'x\\\\']", ["a\\n", "x\\\\"]),  # as saferepr has it
        ("b'it's'", b"it's"),
        ("(1)", 1),
        ("[1,2,{'a':(3,)}]", [1, 2, {"a": (3,)}]),
    ],
)
def test_quotes_and_commas(text: str, value: Any) -> None:
    assert parse_repr(text) == (value, ())


def test_numbers_that_equal_nothing() -> None:
    value = parse_repr("[nan, inf, -inf, Decimal('NaN'), Decimal('sNaN')]").value
    assert math.isnan(value[0])
    assert value[1:3] == [math.inf, -math.inf]
    assert list(map(str, value[3:])) == ["NaN", "sNaN"]


def test_a_list_is_never_shared() -> None:
    value = parse_repr("[[], []]").value
    value[0].append(1)
    assert parse_repr("[[], []]").value == [[], []] != value


def test_deep_nesting_is_cut() -> None:
    for depth, whole in [(MAX_DEPTH, True), (MAX_DEPTH + 1, False), (5000, False)]:
        parsed = parse_repr("[" * depth + "[], 'x'" + "]" * depth)
        assert parsed.whole is whole
        json.dumps(parsed.value)


def test_the_paths_are_bounded() -> None:
    parsed = parse_repr(f"[{'[...], ' * 5000}1]")
    assert parsed.missing == tuple((index,) for index in range(MAX_PATHS))
    assert parsed.value == [CUT] * 5000 + [1]


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "["])
@pytest.mark.parametrize(
    "unit",
    [
        *["[", "{", "(,", "{1: ", "'", '"', "\\'", "'\\', ", "'\\',", "b'", "b'x, ", "b'x'b, ", "'...'x", "\\"],
        *[".", "... ", "[...], ", " ", ", ", "),", "<", "UUID('", "UUID('... ", "datetime.datetime(1, ", "frozenset({"],
        *["9", "-", "None"],
    ],
)
def test_a_million_characters_are_no_matter(prefix: str, unit: str) -> None:
    """What takes more than linear time would run into the timeout."""
    json.dumps(parse_repr(prefix + unit * (1_000_000 // len(unit))).value, default=str)
