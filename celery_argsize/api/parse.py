"""From an argsrepr or kwargsrepr back to values: ``ast.literal_eval`` for text that Celery wrote, and may have cut.

What is cut or no repr becomes a placeholder with a path, so ``json.dumps`` meets no Ellipsis, and nothing raises.
Whether a header *was* cut is ``truncation``'s question, which has the value to compare with; here is the text alone.
Pure: nothing in the text is run, and time and memory are linear in its length, as far as those of dicts are.

Source of the forms: ``celery.utils.saferepr`` and ``celery.utils.text.truncate`` of Celery 5.3 to 5.7.
"""

from __future__ import annotations

import json
import math
import re
from copy import copy
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable

#: Stands where something was left out.
CUT: Final = "<cut>"
#: Stands where something is shown that cannot be made again, like ``<Song object at 0x7f…>``.
UNREADABLE: Final = "<unreadable>"
#: Containers within containers; deeper ones are ``CUT``. Well below where ``json.dumps`` gives up.
MAX_DEPTH: Final = 100
#: Paths in ``ParsedRepr.missing``; further ones are left out.
MAX_PATHS: Final = 1000
_Path: TypeAlias = tuple[int | str, ...]


class ParsedRepr(NamedTuple):
    """What a repr says."""

    value: Any
    """The original value if nothing is missing; otherwise one that ``json.dumps`` takes for sure."""
    missing: tuple[_Path, ...]
    """Where something is cut, unreadable or in doubt: indices and keys as in ``value``, so ``()`` is all of it."""

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


def parse_repr(text: object) -> ParsedRepr:
    r"""Read *text*, an ``argsrepr`` or ``kwargsrepr``. Never raises, whatever *text* is.

    It reads None, bools, numbers, texts, bytes, lists, tuples, dicts, sets, Decimals, UUIDs and what ``datetime`` has,
    with a fixed time zone or none. If all is there, the value is the original one. If not, it is made for JSON: tuples
    and sets are lists, bytes and objects are texts, and a key that is still no text and no int is its JSON.

    ``CUT`` and ``UNREADABLE`` stand for one member, for the rest of a list (at its end) or of a dict (as its last key
    and value), or for a container of which nothing is left. Celery marks a cut by size once, in one container; those
    around it may lack something too, and end with ``CUT`` as well. Text that is no repr, or more, is one placeholder.

    What the text alone cannot tell:

    - A text that ends in ``...`` was cut, or ends so. It is kept, and its path is missing: to replay half a text is
      worse than a false alarm. So are bytes like ``b'ff'``: saferepr shows what is not UTF-8 in hex.
    - Bytes are shown raw: in ``b'it's'`` the quote that ends them is the first with a separator behind it.
    - Texts in single quotes are read as saferepr writes them, where ``'\n'`` is two characters; only what can be read
      better as Python's own repr, such as texts in double quotes, is read as that.
    - ``{'a', ...}`` is a dict, cut after a key, or a set. JSON has no sets: it is read as a dict.
    """
    if type(text) is not str:
        return ParsedRepr(UNREADABLE, ((),))
    reader = _Reader(text)
    if reader.unreadable and ('"' in text or "\\" in text):
        reader = min(reader, _PythonReader(text), key=lambda each: each.unreadable)
    if not reader.missing:
        return ParsedRepr(reader.value, ())
    missing: dict[_Path, None] = {}
    plain = reader.plain(reader.value, (), missing)
    return ParsedRepr(plain, tuple(missing) or ((),))  # no path: it was under a key that came once more


class _Missing(str):
    """What is not what was sent: a placeholder, or a text in doubt."""

    __slots__ = ()


# Told apart by identity: dots in place of the rest of a container, a rest without dots, one member.
_REST: Final = _Missing(CUT)
_UNSAID: Final = _Missing(CUT)
_LOST: Final = _Missing(CUT)
_FOREIGN: Final = _Missing(UNREADABLE)
_COLON: Final = object()  # between a key and its value, among the members of braces
#: A dict that is cut has its rest where a value, a key or a colon should be: what makes it complete.
_TAILS: Final = ([_LOST, _REST, _COLON, _LOST], [_REST, _COLON, _LOST], [_COLON, _LOST, _REST, _COLON, _LOST])

_SIMPLE: Final[tuple[object, ...]] = (None, True, False, math.nan, math.inf, -math.inf, [], (), {}, set(), frozenset())
_CONSTANTS: Final = {
    **{repr(value): value for value in _SIMPLE},
    **dict.fromkeys(["[...]", "(...)", "(...,)", "{...}", "frozenset({...})"], _LOST),  # cut by depth
}
_VALUE: Final = re.compile(
    rf"""(?xa)
      '(?P<text>[^'\\]*)'
    | (?P<int>-?(?:0|[1-9]\d{{0,4299}}))(?![\d.e])  # int() takes no more
    | (?P<float>-?(?:0|[1-9]\d{{0,20}})(?:\.\d{{1,50}}(?:e[+-]\d{{1,3}})?|e[+-]\d{{1,3}}))
    | (?P<constant>{"|".join(map(re.escape, _CONSTANTS))})
    | (?P<open>[\[({{]|frozenset\(\{{)
    | (?P<bytes>b?)(?P<quote>['"])
    | (?P<rest>(?:,\s*)?\.\.\.(?=[,:\])}}]|\Z))
    | UUID\('(?P<uuid>[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}})'\)
    | Decimal\('(?P<decimal>-?(?:\d+(?:\.\d+)?(?:E[+-]\d+)?|s?NaN\d*|Infinity))'\)
    | datetime\.timedelta\((?P<delta>[\w=, -]{{1,80}})\)  # 0, or days=1, seconds=2
    | (?P<moment>datetime\.(?P<kind>datetime|date|time)\((?P<numbers>[\d, ]{{1,80}})(?P<fold>,[ ]fold=1)?
        (?P<zone>,[ ]tzinfo=datetime\.timezone(?:\.utc|\(datetime\.timedelta\((?P<offset>[\w=, -]{{1,80}})\)
        (?:,[ ]'(?P<name>[^'\\]*)')?\)))?(?P<pypy_fold>,[ ]fold=1)?\))
    """
)
#: What follows a member, by what opened its container.
_SEPARATORS: Final = {
    opener: re.compile(rf",(?!\))\s*|{closer}")
    for opener, closer in [("[", r"\]"), ("(", r",?\)"), ("{", r"\}|:\s*"), ("frozenset({", r"\}\)")]
}
_CLOSERS: Final = frozenset(["", "]", ")", ",)", "}", "})"])  # the empty one is the end of the text
_BEHIND: Final = re.compile(r"[,:\])}]|\Z")  # what can follow a text
#: In what cannot be read: an object, a cut, a pair of quotes with no cut in it, a bracket, a separator.
_MARK: Final = re.compile(
    r"""<[^<>]*>(?=[,:\])}]|\Z)"""
    r"""|\.\.\.(?=[,:\])}]|\Z)|'[^'.]*(?:\.(?!\.\.)[^'.]*)*'|"[^".]*(?:\.(?!\.\.)[^".]*)*"|[\[({<\])}>,]|:[ ]"""
)
_DEPTHS: Final = dict.fromkeys("[({<", 1) | dict.fromkeys("])}>", -1)
_PYTHON_TEXT: Final = re.compile(r"""'([^'\\]*(?:\\.[^'\\]*)*)'|"([^"\\]*(?:\\.[^"\\]*)*)\"""", re.DOTALL)
_ESCAPE: Final = re.compile(r"""\\(?:[nrt\\'"]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})""")


def _text(shown: str) -> str:
    return _Missing(shown) if shown.endswith("...") else shown


def _bytes(shown: str) -> bytes | _Missing:
    raw = bytes.fromhex(shown) if re.fullmatch("(?:[0-9a-f]{2})+", shown) else b""
    in_doubt = shown.endswith("...") or raw.decode(errors="ignore").encode() != raw
    return _Missing(shown) if in_doubt else shown.encode()


def _delta(shown: str) -> timedelta:
    parts = (part.partition("=") for part in shown.split(", "))
    return timedelta(**{unit: int(amount) for unit, _, amount in parts if amount})


def _moment(found: re.Match[str]) -> object:
    options: dict[str, Any] = {"fold": 1} if found["fold"] or found["pypy_fold"] else {}
    if found["zone"]:
        name = [] if found["name"] is None else [found["name"]]
        options["tzinfo"] = timezone(_delta(found["offset"]), *name) if found["offset"] else timezone.utc
    kinds: dict[str, Callable[..., object]] = {"datetime": datetime, "date": date, "time": time}
    return kinds[found["kind"]](*map(int, found["numbers"].split(", ")), **options)


_MAKERS: Final[dict[str, Callable[[re.Match[str]], object]]] = {
    "text": lambda found: _text(found["text"]),
    "int": lambda found: int(found["int"]),
    "float": lambda found: float(found["float"]),
    "constant": lambda found: copy(_CONSTANTS[found["constant"]]),  # each list is its own
    "rest": lambda _: _REST,
    "uuid": lambda found: UUID(found["uuid"]),
    "decimal": lambda found: Decimal(found["decimal"]),
    "delta": lambda found: _delta(found["delta"]),
    "moment": _moment,
}


def _container(opener: str, members: list[object], closer: str) -> object:
    """What *members* are together; there is one at least."""
    if members[0] is _REST and len(members) == 1:
        return _LOST
    if opener == "[":
        return members
    if opener == "(":  # mere parentheses, if there is no comma
        return members[0] if closer == ")" and len(members) == 1 else tuple(members)
    cut_after_key = len(members) == 2 and members[1] is _REST  # noqa: PLR2004 - and no colon
    try:
        if _COLON in members or (cut_after_key and opener == "{"):
            return _dict(members)
        return set(members) if opener == "{" else frozenset(members)
    except TypeError:  # unhashable
        return _FOREIGN


def _dict(members: list[object]) -> object:
    if members[-1] is _REST or members[-1] is _UNSAID:
        members[-1:] = _TAILS[len(members) % 3]
    well_formed = len(members) == 3 * members[1::3].count(_COLON)
    return dict(zip(members[::3], members[2::3], strict=True)) if well_formed else _FOREIGN


class _Reader:
    """Reads one text from left to right, with what is open on a stack."""

    def __init__(self, text: str) -> None:
        self.missing = False
        self.unreadable = 0
        self._text = text
        self._at = 0
        self._cut = False  # the last member was a cut, and only closers have followed
        self._open: list[tuple[str, list[object]]] = []
        self._shown: dict[int, tuple[object, list[object]]] = {}  # sets by id, and their members in order
        # ``UUID('12...``: a cut between two quotes has left one alone.
        last = text.rfind("'")
        alone = text[last - 1 : last] == "(" and not _BEHIND.match(text, last + 1)
        self._paired = last if alone else len(text)
        self.value = self._read()

    def _read(self) -> object:
        """The value; one placeholder if there is more in the text, or none."""
        value = self._member()
        while self._open:
            opener, members = self._open[-1]
            while not (found := _SEPARATORS[opener].match(self._text, self._at)) and self._at < len(self._text):
                skipped = self._skip()
                value = value if value is _REST else skipped
            separator = found.group() if found else ""
            self._at += len(separator)
            members.append(value)
            self.missing |= type(value) is _Missing
            self.unreadable += value is _FOREIGN
            if separator[:1] == ":":
                members.append(_COLON)
            value = self._close(separator) if separator in _CLOSERS else self._member()
        # Before 5.7, Celery closes more than it has opened where it cuts.
        if self._text[self._at :].strip(",)]}" if self.missing else "") or value is _REST:
            self.unreadable += len(self._text)
            value = _LOST if self._text.endswith("...") else _FOREIGN
        self.missing |= type(value) is _Missing
        return value

    def _close(self, closer: str) -> object:
        opener, members = self._open.pop()
        if len(self._open) >= MAX_DEPTH:
            return _LOST
        if not closer or (self._cut and (closer != ",)" or len(members) > 1)):
            self.missing = self._cut = True
            members += [] if members[-1] is _REST else [_UNSAID]
        value = _container(opener, members, closer)
        if opener[-1] == "{" and isinstance(value, (set, frozenset)):
            self._shown[id(value)] = value, members
        return value

    def _member(self) -> object:
        """The next value that is no container, or an empty one; those that open before it are left open."""
        self._cut = False
        while found := _VALUE.match(self._text, self._at):
            self._at = found.end()
            if not found["open"]:
                return self._made(found)
            members = self._open[-1][1] if len(self._open) > MAX_DEPTH else []
            self._open.append((found["open"], members))
        return self._skip()

    def _made(self, found: re.Match[str]) -> object:
        try:
            value = self._quoted(found) if found["quote"] else _MAKERS[found.lastgroup or ""](found)
        except (ValueError, TypeError, ArithmeticError):  # such as a thirteenth month
            return self._skip()
        self._cut = value is _REST
        return value

    def _skip(self) -> _Missing:
        """Pass over what cannot be read, as far as it may be one member."""
        separator = _SEPARATORS[self._open[-1][0]] if self._open else None
        depth = 0
        for found in _MARK.finditer(self._text, self._at):
            mark = found.group()
            if mark == "...":
                self._at = found.end()
                return _LOST
            if separator and not depth and separator.match(self._text, found.start()):
                self._at = found.start()
                return _FOREIGN
            depth = max(0, depth + _DEPTHS.get(mark, 0))
        self._at = len(self._text)
        return _REST

    def _quoted(self, found: re.Match[str]) -> object:
        if found["quote"] != "'":
            self._at = found.start()
            return self._skip()
        start = found.end()
        end = self._text.find("'", start)
        while end >= 0 and not self._closes(end, raw=found["bytes"] == "b"):
            end = self._text.find("'", end + 1)
        self._at = end + 1 if end >= 0 else len(self._text)
        if end < 0:
            return _REST
        shown = self._text[start:end]
        return _bytes(shown) if found["bytes"] else _text(shown.replace("\\'", "'"))

    def _closes(self, quote: int, *, raw: bool) -> bool:
        r"""Whether *quote* ends the text that it is in. One behind a backslash may be escaped, or follow the last one.

        Only one of the two comes out even: quotes but escaped ones come in pairs, and backslashes are in texts only.
        So the next ``\'`` has to be in a text, or the end of all outside, and the number of quotes up to there decides.
        """
        followed = _BEHIND.match(self._text, quote + 1) is not None
        if self._text[quote - 1] != "\\":
            return followed or not raw
        further = self._text.find("\\'", quote + 1)
        quotes = self._text.count("'", quote + 1, self._paired if further < 0 else further)
        return followed and quotes % 2 == (further >= 0)

    def plain(self, value: object, path: _Path, missing: dict[_Path, None]) -> Any:
        """*value*, which is at *path*, for ``json.dumps``; the paths of what is missing go to *missing*."""
        if isinstance(value, _Missing):
            if len(missing) < MAX_PATHS:
                missing[path] = None
            return str(value)
        if isinstance(value, dict):
            plain: dict[int | str, Any] = {}
            for key, member in value.items():
                missing_in_key: dict[_Path, None] = {}
                name = self.plain(key, (), missing_in_key)
                name = name if type(name) in {str, int} else json.dumps(name)
                if missing_in_key or name in plain:  # two keys may have become one: the first stays, in doubt
                    self.plain(_LOST, (*path, name), missing)
                plain[name] = plain[name] if name in plain else self.plain(member, (*path, name), missing)
            return plain
        if isinstance(value, (set, frozenset)):
            value = self._shown[id(value)][1] if value else []
        if isinstance(value, (list, tuple)):
            return [self.plain(member, (*path, index), missing) for index, member in enumerate(value)]
        if value is None or isinstance(value, (str, int, float)):
            return value
        if isinstance(value, bytes):
            return value.decode("utf-8", "backslashreplace")
        return value.isoformat() if isinstance(value, (date, time)) else str(value)


class _PythonReader(_Reader):
    """Reads what Python's own ``repr`` wrote: quotes of both kinds, and escapes."""

    def _quoted(self, found: re.Match[str]) -> object:
        quoted = _PYTHON_TEXT.match(self._text, found.end() - 1)
        self._at = quoted.end() if quoted else len(self._text)
        if quoted is None:
            return _REST
        shown = _ESCAPE.sub(lambda escape: escape[0].encode().decode("unicode_escape"), quoted[quoted.lastindex or 0])
        return shown.encode("latin-1") if found["bytes"] else _text(shown)
