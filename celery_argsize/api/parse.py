"""Reads an ``argsrepr`` or ``kwargsrepr``: ``ast.literal_eval`` for text that may be cut.

Nothing in the text is run. Time is linear in its length. Source of the forms:
``celery.utils.saferepr``.
"""

from __future__ import annotations

import ast
import json
import math
import re
from copy import copy
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable

#: Stands for something that was left out.
CUT: Final = "<cut>"
#: Stands for a value whose repr is not Python, like ``<Song object at 0x7f…>``.
UNREADABLE: Final = "<unreadable>"
#: Levels of containers; deeper ones are ``CUT``.
#: ``json.dumps`` fails at about 1,000.
MAX_DEPTH: Final = 100
#: Most paths in ``ParsedRepr.missing``. It bounds memory.
MAX_PATHS: Final = 1000
_Path: TypeAlias = tuple[int | str, ...]


class ParsedRepr(NamedTuple):
    """The value that a repr shows."""

    value: Any
    """The original value if nothing is missing, else a
    value for ``json.dumps``."""
    missing: tuple[_Path, ...]
    """Paths (indices and keys) to what is cut, unreadable
    or doubtful. ``()``: all."""

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


def parse_repr(text: object) -> ParsedRepr:
    r"""Read *text*, an ``argsrepr`` or ``kwargsrepr``. Never raises, whatever *text* is.

    If nothing is missing, the value is the original: of built-in types, Decimal,
    UUID and ``datetime`` (time zones with a fixed offset only). Otherwise it fits
    JSON, and a key that is neither text nor int is its JSON.

    ``CUT`` and ``UNREADABLE`` stand for a member, a container, the end of a
    list or of a dict (as key and value). Celery marks a cut in the
    innermost container only. Those around it may lack something too, so
    they end with ``CUT`` as well.

    Doubtful values stay, with their paths in ``missing``: texts that end in
    ``...``, and bytes like ``b'ff'``, as saferepr shows bytes in hex if they are
    not UTF-8. ``'\n'`` is two characters, as saferepr writes it.
    """
    if type(text) is not str:
        return ParsedRepr(UNREADABLE, ((),))
    reader = _Reader(text, for_json=False)
    if not reader.missing:
        return ParsedRepr(reader.value, ())
    missing: dict[_Path, None] = {}
    value = _plain(_Reader(text, for_json=True).value, (), missing)
    return ParsedRepr(value, tuple(missing) or ((),))  # a repeated key may hide the path


@dataclass(frozen=True, eq=False)
class _Missing:
    """A value that is not in the text, or is in doubt."""

    text: str


_REST: Final = _Missing(CUT)  # of a container
_MEMBER: Final = _Missing(CUT)  # one member, or all of a container
_UNREADABLE: Final = _Missing(UNREADABLE)
#: Between a key and its value, among the members of braces.
_COLON: Final = object()

_SIMPLE: Final[tuple[object, ...]] = (None, True, False, math.nan, math.inf, -math.inf, [], (), {}, set(), frozenset())
_CONSTANTS: Final[dict[str, object]] = {
    **{repr(value): value for value in _SIMPLE},
    **dict.fromkeys(["[...]", "(...)", "(...,)", "{...}", "frozenset({...})"], _MEMBER),  # cut by depth
}
_CALLS: Final[dict[str, Any]] = {
    "UUID": UUID,
    "Decimal": Decimal,
    **{f"datetime.{kind.__name__}": kind for kind in (datetime, date, time, timedelta, timezone)},
}
_INNER: Final = r"""[^()"\\]{0,120}"""  # of a call, between parentheses
_VALUE: Final = re.compile(
    rf"""(?xa)
      (?P<constant>{"|".join(map(re.escape, _CONSTANTS))})
    | (?P<open>[\[({{]|frozenset\(\{{)
    | (?P<quote>b?')
    | (?P<rest>(?:,\s*)?\.\.\.(?=[,:\])}}]|\Z))
    | (?P<int>-?(?:0|[1-9]\d{{0,4299}}))(?![\d.e])  # int() takes no more
    | (?P<float>-?(?:0|[1-9]\d{{0,20}})(?:\.\d{{1,50}}(?:e[+-]\d{{1,3}})?|e[+-]\d{{1,3}}))
    | (?P<call>(?:{"|".join(map(re.escape, _CALLS))})\({_INNER}(?:\({_INNER}(?:\({_INNER}\){_INNER})?\){_INNER})?\))
    """
)
#: Opening of a container → what follows its members.
_SEPARATORS: Final = {
    opener: re.compile(rf",(?!\))\s*|{closer}")
    for opener, closer in [("[", r"\]"), ("(", r",?\)"), ("{", r"\}|:\s*"), ("frozenset({", r"\}\)")]
}
_CLOSERS: Final = frozenset(["", "]", ")", ",)", "}", "})"])  # empty: the end of the text
_AFTER_TEXT: Final = re.compile(r"[,:\])}]|\Z")
#: In unreadable text: object, cut, quoted text without a cut, bracket, separator.
_MARK: Final = re.compile(
    r"""<[^<>]*>(?=[,:\])}]|\Z)"""
    r"""|\.\.\.(?=[,:\])}]|\Z)|'[^'.]*(?:\.(?!\.\.)[^'.]*)*'|"[^".]*(?:\.(?!\.\.)[^".]*)*"|[\[({<\])}>,]|:[ ]"""
)
_DEPTHS: Final = dict.fromkeys("[({<", 1) | dict.fromkeys("])}>", -1)


def _bytes(shown: str) -> bytes | _Missing:
    raw = bytes.fromhex(shown) if re.fullmatch("(?:[0-9a-f]{2})+", shown) else b""
    in_doubt = shown.endswith("...") or raw.decode(errors="ignore").encode() != raw
    return _Missing(shown) if in_doubt else shown.encode()


def _made(node: ast.expr) -> Any:
    """The value of a call of one of ``_CALLS``."""
    if isinstance(node, ast.Call):
        options = {keyword.arg or "": _made(keyword.value) for keyword in node.keywords}
        return _CALLS[ast.unparse(node.func)](*map(_made, node.args), **options)
    return timezone.utc if ast.unparse(node) == "datetime.timezone.utc" else ast.literal_eval(node)


_MAKERS: Final[dict[str, Callable[[str], object]]] = {
    "constant": lambda shown: copy(_CONSTANTS[shown]),  # each list is its own
    "rest": lambda _: _REST,
    "int": int,
    "float": float,
    "call": lambda shown: _made(ast.parse(shown, mode="eval").body),
}


def _container(opener: str, members: list[object], closer: str, *, for_json: bool) -> object:
    """The container of one or more *members*. *for_json*: a set becomes a tuple, in order."""
    if members == [_REST]:
        return _MEMBER
    if opener == "[":
        return members
    if opener == "(":  # mere parentheses, if there is no comma
        return members[0] if closer == ")" and len(members) == 1 else tuple(members)
    try:
        if opener == "{" and (_COLON in members or members[1:] == [_REST]):
            return _dict(members)
        unordered = set(members) if opener == "{" else frozenset(members)
    except TypeError:  # unhashable
        return _UNREADABLE
    return tuple(members) if for_json else unordered


def _dict(members: list[object]) -> object:
    if members[-1] is _REST:  # in place of a value, a key or a colon
        completed = ([_MEMBER], [], [_COLON, _MEMBER])[len(members) % 3]
        members[-1:] = [*completed, _REST, _COLON, _MEMBER]
    if not len(members) == 3 * members[1::3].count(_COLON) == 3 * members.count(_COLON):
        return _UNREADABLE
    return dict(zip(members[::3], members[2::3], strict=True))


class _Reader:
    """Reads one text from left to right, with a stack of open containers."""

    def __init__(self, text: str, *, for_json: bool) -> None:
        self.missing = False
        self._text = text
        self._for_json = for_json
        self._at = 0
        self._cut = False  # the last member was a cut, and only closers have followed
        self._open: list[tuple[str, list[object]]] = []  # opening and members of each container
        # In ``UUID('12...``, the second quote of a pair was cut away.
        last = text.rfind("'")
        alone = text[last - 1 : last] == "(" and not _AFTER_TEXT.match(text, last + 1)
        self._paired_until = last if alone else len(text)
        self.value = self._read()

    def _read(self) -> object:
        """The only value in the text; a placeholder if there is none, or more than one."""
        value = self._member()
        while self._open:
            opener, members = self._open[-1]
            while not (match := _SEPARATORS[opener].match(self._text, self._at)) and self._at < len(self._text):
                skipped = self._skip()
                value = value if value is _REST else skipped
            separator = match.group() if match else ""
            self._at += len(separator)
            members.append(value)
            self.missing |= isinstance(value, _Missing)
            if separator[:1] == ":":
                members.append(_COLON)
            value = self._close(separator) if separator in _CLOSERS else self._member()
        # Before 5.7, Celery closes more than it has opened where it cuts.
        if self._text[self._at :].strip(",)]}" if self.missing else "") or value is _REST:
            value = _MEMBER if self._text.endswith("...") else _UNREADABLE
        self.missing |= isinstance(value, _Missing)
        return value

    def _close(self, closer: str) -> object:
        opener, members = self._open.pop()
        if len(self._open) >= MAX_DEPTH:
            return _MEMBER
        if not closer or (self._cut and (closer != ",)" or len(members) > 1)):
            self.missing = self._cut = True
            if members[-1] is not _REST:
                members.append(_REST)
        return _container(opener, members, closer, for_json=self._for_json)

    def _member(self) -> object:
        """The next value that is no container, or an empty one. Opens containers before it."""
        self._cut = False
        while match := _VALUE.match(self._text, self._at):
            self._at = match.end()
            kind = match.lastgroup or ""
            if kind == "open":
                members = self._open[-1][1] if len(self._open) > MAX_DEPTH else []
                self._open.append((match["open"], members))
                continue
            try:
                value = self._quoted(raw=match[kind] == "b'") if kind == "quote" else _MAKERS[kind](match[kind])
            except Exception:  # noqa: BLE001 - such as a thirteenth month
                self._at = match.start()
                break
            self._cut = value is _REST
            return value
        return self._skip()

    def _skip(self) -> _Missing:
        """Pass over unreadable text that may be one member."""
        separator = _SEPARATORS[self._open[-1][0]] if self._open else None
        depth = 0
        for match in _MARK.finditer(self._text, self._at):
            mark = match.group()
            if mark == "...":
                self._at = match.end()
                return _MEMBER
            if separator and not depth and separator.match(self._text, match.start()):
                self._at = match.start()
                return _UNREADABLE
            depth = max(0, depth + _DEPTHS.get(mark, 0))
        self._at = len(self._text)
        return _REST

    def _quoted(self, *, raw: bool) -> object:
        start = self._at
        end = self._text.find("'", start)
        while end >= 0 and not self._closes(end, raw=raw):
            end = self._text.find("'", end + 1)
        self._at = end + 1 if end >= 0 else len(self._text)
        if end < 0:
            return _REST
        shown = self._text[start:end]
        if raw:
            return _bytes(shown)
        shown = shown.replace("\\'", "'")
        return _Missing(shown) if shown.endswith("...") else shown

    def _closes(self, quote: int, *, raw: bool) -> bool:
        r"""Whether *quote* ends its text. Behind a backslash, it may be a part of the text.

        Unescaped quotes come in pairs, and backslashes are in texts only. So the
        next ``\'`` is inside a text, and the end of everything is not: the number
        of quotes up to there tells whether *quote* ended a text.
        """
        followed = _AFTER_TEXT.match(self._text, quote + 1) is not None
        if self._text[quote - 1] != "\\":
            return followed or not raw
        further = self._text.find("\\'", quote + 1)
        quotes = self._text.count("'", quote + 1, self._paired_until if further < 0 else further)
        return followed and quotes % 2 == (further >= 0)


def _note(path: _Path, missing: dict[_Path, None]) -> None:
    if len(missing) < MAX_PATHS:
        missing[path] = None


def _plain(value: object, path: _Path, missing: dict[_Path, None]) -> Any:
    """*value* at *path*, for ``json.dumps``. Adds the paths of missing values to *missing*."""
    if isinstance(value, _Missing):
        _note(path, missing)
        return value.text
    if isinstance(value, dict):
        plain: dict[int | str, Any] = {}
        for key, member in value.items():
            missing_in_key: dict[_Path, None] = {}
            name = _plain(key, (), missing_in_key)
            name = name if type(name) in {str, int} else json.dumps(name)
            if missing_in_key or name in plain:  # of two keys of one name, the first stays
                _note((*path, name), missing)
            plain[name] = plain[name] if name in plain else _plain(member, (*path, name), missing)
        return plain
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(member, (*path, index), missing) for index, member in enumerate(value)]
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, bytes):
        return value.decode()
    return value.isoformat() if isinstance(value, (date, time)) else str(value)
