"""Fifty shapes of task arguments, which ``advice.py`` sends. They are random, but the same in every run."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SHAPES", "Shape"]

Call = tuple[tuple[Any, ...], dict[str, Any]]

ENGLISH: Final = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "music", "plays"]
FRENCH: Final = ["été", "déjà", "où", "forêt", "naïve", "garçon", "à", "la", "fenêtre", "œuvre", "très", "Noël", "âme"]
CJK: Final = [
    "音楽",
    "図書館",
    "東京",
    "雨の日",
    "新しい",
    "歌手",
    "交響曲",
    "第五番",
    "春の海",
    "北京",
    "京劇",
    "한국",
    "노래",
]
GREEK: Final = ["Αθήνα", "μουσική", "τραγούδι", "Ελλάδα", "θάλασσα", "ήλιος", "και", "το", "του", "χρόνος"]
EMOJI: Final = ["🎵", "🎸 solo", "🔥🔥", "ok 👍", "👩‍👩‍👧", "party 🎉!", "☕"]
BEGINNING: Final = datetime(2026, 1, 5, 8, 30, tzinfo=timezone.utc)


class Shape(NamedTuple):
    """A task with arguments of one kind."""

    name: str
    """Also the seed of its random values."""
    runs: int
    make: Callable[[Random], Call]
    """Makes the arguments of one run: args and kwargs."""

    def calls(self) -> list[Call]:
        """The arguments of all its runs."""
        random = Random(self.name)
        return [self.make(random) for _ in range(self.runs)]


# -- values -------------------------------------------------------------------------------------------------------


def _about(random: Random, count: int) -> int:
    """A random number within a fifth of *count*."""
    return max(1, round(count * random.uniform(0.8, 1.2)))


def _text(random: Random, length: int, words: list[str] = ENGLISH, joint: str = " ") -> str:
    chosen: list[str] = []
    size = 0
    while size < length:
        chosen.append(random.choice(words))
        size += len(chosen[-1]) + len(joint)
    return joint.join(chosen)[:length]


def _record(random: Random, words: list[str] = ENGLISH) -> dict[str, Any]:
    return {
        "id": random.randrange(10**6),
        "title": _text(random, random.randint(8, 30), words),
        "artist": _text(random, random.randint(6, 20), words),
        "year": random.randint(1950, 2026),
        "length": round(random.uniform(90, 600), 2),
        "explicit": random.randrange(10) == 0,
    }


def _nested(random: Random) -> dict[str, Any]:
    return {
        "id": random.randrange(10**6),
        "album": {"name": _text(random, 18), "label": {"name": _text(random, 10), "country": "FR"}},
        "tags": [random.choice(ENGLISH) for _ in range(random.randint(1, 5))],
        "tracks": [{"title": _text(random, 15), "length": random.randint(90, 600)} for _ in range(3)],
    }


def _tree(random: Random, levels: int, width: int) -> Any:
    if not levels:
        return random.randrange(1000)
    return {"name": random.choice(ENGLISH), "children": [_tree(random, levels - 1, width) for _ in range(width)]}


def _chain(random: Random, levels: int) -> Any:
    inner: Any = [_text(random, 200)]
    for level in range(levels):
        inner = {"level": level, "next": inner} if level % 2 else [inner, random.randrange(100)]
    return inner


# -- args and kwargs of a run -------------------------------------------------------------------------------------


def _list(count: int, member: Callable[[Random], Any]) -> Callable[[Random], Call]:
    """One argument: a list of about *count* members."""
    return lambda random: (([member(random) for _ in range(_about(random, count))],), {})


def _one(length: int, words: list[str] = ENGLISH, joint: str = " ") -> Callable[[Random], Call]:
    """One argument: a text of about *length* characters."""
    return lambda random: ((_text(random, _about(random, length), words, joint),), {})


def _texts(count: int, length: int, words: list[str] = ENGLISH, joint: str = " ") -> Callable[[Random], Call]:
    return _list(count, lambda random: _text(random, _about(random, length), words, joint))


def _ids(random: Random) -> int:
    return random.randrange(10**6)


def _floats(random: Random) -> list[float]:
    return [random.gauss(0, 1) for _ in range(20)]


def _uuid(random: Random) -> UUID:
    return UUID(int=random.getrandbits(128), version=4)


def _url(random: Random) -> str:
    return (
        f"https://example.com/{_text(random, 20, joint='/')}?q={_text(random, 12, joint='+')}&page={_ids(random)}#top"
    )


def _dict_of_dicts(count: int) -> Callable[[Random], Call]:
    return lambda random: (({f"track-{n}": _record(random) for n in range(_about(random, count))},), {})


def _tiny(random: Random) -> dict[str, int]:
    return {"a": random.randrange(10)}


def _objects(random: Random) -> dict[str, Any]:
    return {
        "uuid": _uuid(random),
        "when": BEGINNING + timedelta(seconds=random.randrange(10**7)),
        "price": Decimal(random.randrange(10**5)) / 100,
    }


def _log_uniform(random: Random) -> Call:
    return ([_record(random) for _ in range(round(2 * 400 ** random.random()))],), {}


def _outlier(random: Random) -> Call:
    return ([_record(random) for _ in range(800 if not random.randrange(30) else 12)],), {}


def _two_sizes(random: Random) -> Call:
    return ([_ids(random) for _ in range(20_000 if not random.randrange(4) else 300)],), {}


def _ids_and_text(random: Random) -> Call:
    return ([_ids(random) for _ in range(100)], _text(random, _about(random, 3000), CJK)), {}


def _small_or_large(random: Random) -> Call:
    return ((_text(random, 4000) if not random.randrange(3) else _text(random, 600, CJK)),), {}


def _two_kinds(random: Random) -> Call:
    if random.randrange(2):
        return (_text(random, _about(random, 20_000)),), {}
    return ([_record(random) for _ in range(_about(random, 100))],), {}


def _both_parts(random: Random) -> Call:
    return ([_ids(random) for _ in range(1500)],), {"records": [_record(random) for _ in range(60)], "dry_run": False}


def _options(random: Random) -> Call:
    return (), {f"option_{word}_{n}": random.choice([word, n, None, True]) for n in range(12) for word in ENGLISH[:8]}


SHAPES: Final = (
    Shape("records, 1.5 KB", 60, _list(14, _record)),
    Shape("records, 10 KB", 60, _list(90, _record)),
    Shape("records, 100 KB", 12, _list(900, _record)),
    Shape("records, 300 KB", 4, _list(2700, _record)),
    Shape("records in kwargs", 40, lambda r: ((), {"library": "main", "records": [_record(r) for _ in range(150)]})),
    Shape("records as arguments", 40, lambda r: (tuple(_record(r) for _ in range(_about(r, 60))), {})),
    Shape("nested records, 5 KB", 60, _list(20, _nested)),
    Shape("nested records, 60 KB", 12, _list(240, _nested)),
    Shape("small in Japanese, 1 in 3 large in English", 60, _small_or_large),
    Shape("dict of dicts, 120 KB", 10, _dict_of_dicts(900)),
    Shape("tiny dicts, 4 KB", 60, _list(500, _tiny)),
    Shape("tiny dicts, 40 KB", 6, _list(4500, _tiny)),
    Shape("pairs", 40, _list(1000, lambda r: [_ids(r), r.choice(ENGLISH)])),
    Shape("ids, 2 KB", 60, _list(300, _ids)),
    Shape("ids, 60 KB", 30, _list(8500, _ids)),
    Shape("ids, 500 KB", 6, _list(70_000, _ids)),
    Shape("ids, then a text in Japanese", 40, _ids_and_text),
    Shape("tags of one Chinese character", 40, _list(1000, lambda r: r.choice("".join(CJK)))),
    Shape("matrix of floats, 20 KB", 40, _list(50, _floats)),
    Shape("matrix of floats, 400 KB", 6, _list(1000, _floats)),
    Shape("one text, 1.5 KB", 60, _one(1500)),
    Shape("one text, 100 KB", 20, _one(100_000)),
    Shape("one text, 500 KB", 6, _one(500_000)),
    Shape("one text in base64", 30, lambda r: ((base64.b64encode(r.randbytes(30_000)).decode(),), {})),
    Shape("texts, 100 KB", 20, _texts(2000, 50)),
    Shape("texts in French", 40, _texts(200, 40, FRENCH)),
    Shape("texts in Chinese, Japanese, Korean", 40, _texts(500, 40, CJK)),
    Shape("one text in Greek", 30, _one(40_000, GREEK)),
    Shape("emoji", 40, _texts(300, 20, EMOJI)),
    Shape("records in many scripts", 30, _list(300, lambda r: _record(r, r.choice([FRENCH, CJK, GREEK, EMOJI])))),
    Shape("texts with quotes", 40, _texts(100, 60, ['"yes"', 'he said "no"', '""', "plain"])),
    Shape("texts with apostrophes", 40, _texts(100, 60, ["don't", "l'été", "'quoted'", "it's", "rock 'n' roll"])),
    Shape("paths with backslashes", 40, _texts(150, 50, ["C:", "Users", "Été", "My Music", "new", "tracks"], "\\")),
    Shape("texts of many lines", 40, _texts(40, 200, ["line one\r\n", "\tindented\n", "next", "\n\n"])),
    Shape("quotes and escapes of all kinds", 40, _texts(100, 60, ["\"'\\", "\\'", '\\"', "\n'", "\x00\x1b\x7f", "é'"])),
    Shape("JSON within a text", 40, lambda r: ((json.dumps([_record(r) for _ in range(100)]),), {})),
    Shape("texts with commas and colons", 40, _texts(200, 40, ["a, b", "x: y", "[1, 2]", "{k: v}", "...", ", ..."])),
    Shape("URLs", 40, _list(120, _url)),
    Shape("UUIDs as texts", 40, _list(400, lambda r: str(_uuid(r)))),
    Shape("UUID, datetime and Decimal objects", 30, _list(100, _objects)),
    Shape("booleans and None", 40, _list(600, lambda r: r.choice([True, False, None]))),
    Shape("empty containers", 40, _list(600, lambda r: r.choice([[], {}, "", 0]))),
    Shape("nested 14 levels deep", 40, lambda r: (tuple(_chain(r, 12) for _ in range(8)), {})),
    Shape("a tree", 30, lambda r: ((_tree(r, 5, 3),), {})),
    Shape("many options in kwargs", 40, _options),
    Shape("large args and kwargs", 30, _both_parts),
    Shape("mixed sizes, 0.2 KB to 100 KB", 60, _log_uniform),
    Shape("two sizes: 2 KB, 1 in 4 of 140 KB", 40, _two_sizes),
    Shape("two kinds: a text or records", 40, _two_kinds),
    Shape("1.3 KB, a few outliers of 90 KB", 60, _outlier),
)
