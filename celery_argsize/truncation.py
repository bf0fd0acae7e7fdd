"""What Celery did to an argsrepr: the header that came with the message, held against the value it describes.

Pure: a text and a value in, a verdict out. Cheap where it can be: what was cut has ``...`` in it, and mostly one only,
at its end. Elsewhere such dots may be part of a text (``'Loading...'``), so the header is read side by side with the
value: linear in the header, and paid for by headers with dots only.

The value is the one the worker got, and a serializer changes types on the way (JSON turns tuples into lists and int
keys into text); a member that cannot be matched for such reasons is passed over, and judged by its look.

Source of the forms: ``celery.utils.saferepr`` and ``celery.utils.text.truncate``.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from numbers import Number
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

__all__ = ["CUTS", "Reading", "Verdict", "read_header"]

Verdict = Literal["intact", "size", "depth", "both", "custom", "unknown"]

#: The verdicts that mean: Celery cut it.
CUTS: Final = ("size", "depth", "both")

#: Types whose own repr is safe to ask for and is what saferepr shows.
_REPR_TYPES: Final = (Decimal, UUID, datetime, date, time, timedelta)
#: Types that no serializer changes.
_PLAIN: Final = (str, int, float, bool, type(None))
_OPENERS: Final = {list: "[(", tuple: "([", dict: "{", set: "{", frozenset: "{"}
#: Where a cut can be: dots with the end of a text, of a container or of the header behind them, or the next member.
_MARK: Final = re.compile(r"\.\.\.(?:['\])},]|$)")
#: A container that is empty, cut, or begins with a text, a number, a constant, an object or another container.
_SAFEREPR: Final = re.compile(r"[(\[{]+(?:[\])},.'\"<\d-]|b'|None\b|True\b|False\b|nan\b|inf\b|[A-Za-z_][\w.]*\()")
#: A quote that may be part of a text, or end one that ends in a backslash.
_UNCLEAR: Final = re.compile(r"\\'(?:[,\])}]|: |$)")
_QUOTED: Final = re.compile(r"'(?:\\'|[^'])*'")
_TOKEN: Final = re.compile(r"'(?:\\'|[^'])*'|[(\[{](?:\.\.\.,?[)\]}])?|[)\]}]|, (?:\.\.\.)?|: |\.\.\.")
#: What stands for a container below the last level; its opener is not the one of an object's repr.
_DEEP: Final = re.compile(r"(?<!\w)(?:frozenset\()?[(\[{]\.{3,}(?:,\)|[)\]}])?")
#: How the first member of a container begins, by its type.
_DIGITS: Final = "0123456789-"
_BEGINNINGS: Final = {str: "'", int: _DIGITS, float: _DIGITS + "ni", bool: "TF", list: "[(", tuple: "([", dict: "{"}


class Reading(NamedTuple):
    """What a header shows."""

    verdict: Verdict
    """``intact``; cut by ``size``, ``depth`` or ``both``; ``custom``: the caller's own; ``unknown``: none."""
    levels: int = 0
    """Where it was cut by depth: how many levels it shows (the producer's ``task_repr_maxlevels``); else 0."""
    limit: int = 0
    """Where it was cut by size: the producer's limit in characters, at most; 0 where the cut does not tell."""


_UNKNOWN: Final = Reading("unknown")
_INTACT: Final = Reading("intact")
_CUSTOM: Final = Reading("custom")


def read_header(header: object, value: object) -> Reading:
    """What Celery did to *header*, the ``argsrepr`` or ``kwargsrepr`` of *value*; ``None`` where the message had none.

    A text that the caller wrote itself (``argsrepr=`` of ``apply_async``) is known as such unless it begins and ends
    as the repr of *value* would: without a cut in it, such a one counts as intact.
    """
    if type(header) is not str or not header:
        return _UNKNOWN
    if not _begins_like(header, value):
        return _CUSTOM
    if _MARK.search(header) is None:
        return _INTACT
    if _SAFEREPR.match(header) is None:
        return _CUSTOM
    try:
        return _glance(header) or _Reader(header).run(value)
    except Exception:  # noqa: BLE001 - foreign, too deep, or a value whose own code raises
        return _by_look(header)


def _begins_like(header: str, value: Any) -> bool:
    """Whether *header* has the brackets of *value*, and begins as its first member would."""
    if isinstance(value, dict):
        opener, closer, first = "{", "}", next(iter(value), None)
    elif isinstance(value, (list, tuple)):
        opener, closer, first = "([", ")]", value[0] if value else None
    else:
        return True
    if header[0] not in opener or (header[-1] not in closer and not header.endswith("...")):
        return False  # before Celery 5.7, a cut may take the last bracket too
    if not value:
        return len(header) == 2  # noqa: PLR2004 - "()": the outermost level is never left out
    beginning = _BEGINNINGS.get(type(first))
    return beginning is None or header[1] in beginning or header.startswith(", ...", 1)


def _glance(header: str) -> Reading | None:
    """The reading by the marks outside quotes, or ``None`` where that does not settle it.

    That is where a quote may be part of a text, or where nothing but a text that ends in dots may be a cut by size.
    """
    texts, bare = "", header
    if "'" in header:
        if "b'" in header or ("\\'" in header and _UNCLEAR.search(header) is not None):
            return None
        pieces = (header.replace("\\'", "") if "\\" in header else header).split("'")
        if not len(pieces) % 2:
            return None
        bare, texts = "'".join(pieces[::2]), "'".join(pieces[1::2]) + "'"
    limit = _limit(header)
    size, levels = limit > 0, 0
    at = bare.find("...")
    while at >= 0:
        if _DEEP.match(bare, at - 1) is None:
            size = True
        elif not levels:
            shown = bare[: at - 1]
            levels = sum(map(shown.count, "([{")) - sum(map(shown.count, ")]}"))
        at = bare.find("...", at + 3)
    if size:
        return Reading("both" if levels else "size", levels, limit)
    if "...'" in texts:
        return None
    return Reading("depth", levels) if levels else _INTACT


def _limit(header: str) -> int:
    """The most that the limit can be, from a cut between members: saferepr stops as soon as it is reached."""
    shown = header.rstrip(")]},")
    return len(shown) - 5 if shown.endswith(", ...") else 0


def _by_look(header: str) -> Reading:
    """The reading by the header alone: marks outside quotes, in something that looks like saferepr's work."""
    bare = _QUOTED.sub("", header)
    if _SAFEREPR.match(header) is None or "..." not in bare:
        return _CUSTOM
    deep = len(_DEEP.findall(bare))
    size = bare.count("...") > deep
    return Reading("both" if size and deep else "size" if size else "depth", limit=_limit(header) if size else 0)


class _End(Exception):  # noqa: N818 - control flow, never leaves this module
    """The header was cut between two tokens here: only closing brackets follow."""


class _Foreign(Exception):  # noqa: N818 - control flow, never leaves this module
    """The header describes something else than the value here."""


class _Reader:
    """Reads one header against a value. Most methods take a position, and return the one behind what they matched."""

    def __init__(self, header: str) -> None:
        self.text = header
        self.size = False
        self.depth = 0  # the least number of levels at which a container was left out
        self.matched = self.foreign = 0  # members that look as they should, and plain ones that do not

    def run(self, value: Any) -> Reading:
        try:
            if self.read(value, 0, 0) != len(self.text):
                raise _Foreign
        except _End:
            self.size = True
        if self.foreign and not self.matched:
            return _CUSTOM
        if not self.size:
            return Reading("depth", self.depth) if self.depth else _INTACT
        return Reading("both" if self.depth else "size", self.depth, _limit(self.text))

    def _deep(self, level: int) -> None:
        self.depth = min(self.depth or level, level)

    def match(self, value: Any, at: int, level: int) -> int:
        """A member: one that looks different in the header, as a serializer changed its type, is passed over."""
        try:
            return self.read(value, at, level)
        except _Foreign:
            self.foreign += type(value) in _PLAIN
            return self._skip(at, ", ", level)

    def _skip(self, at: int, stop: str, level: int) -> int:
        depth = 0
        for found in _TOKEN.finditer(self.text, at):
            mark = found.group()
            if mark == ", ...":
                raise _End
            if mark == "...":
                self.size = True
            elif len(mark) > 2 and mark[0] in "([{":  # noqa: PLR2004 - "[...]"
                self._deep(level + depth)
            elif mark in "([{":
                depth += 1
            elif mark in ")]}":
                if not depth:
                    return found.start()
                depth -= 1
            elif mark == stop and not depth:
                return found.start()
        raise _Foreign

    def read(self, value: Any, at: int, level: int) -> int:
        if isinstance(value, str):
            return self._chars(value.replace("'", "\\'") if len(value) < len(self.text) else value, "'", at)
        if isinstance(value, bytes):
            return self._bytes(value, at)
        if isinstance(value, dict):
            return self._container(value, _OPENERS[dict], at, level)
        for kind in (list, tuple, set, frozenset):
            if isinstance(value, kind):
                return self._container(value, _OPENERS[kind], at, level)
        if value is None or isinstance(value, _REPR_TYPES):
            return self._token(repr(value), at)
        if isinstance(value, Number):
            return self._token(str(value), at)
        raise _Foreign

    def _stop(self, at: int) -> None:
        """End where the header was cut between two tokens."""
        if self.text.startswith(", ...", at):
            raise _End

    def _token(self, token: str, at: int) -> int:
        self._stop(at)
        if not self.text.startswith(token, at):
            return self._cut(token, at)
        self.matched += 1
        at += len(token)
        if self.text.startswith("...", at):  # one that just fits gets dots all the same
            self.size = True
            at += 3
        return at

    def _punctuation(self, token: str, at: int) -> int:
        self._stop(at)
        if self.text.startswith(token, at):
            return at + len(token)
        raise _Foreign

    def _cut(self, token: str, at: int, end: str = "") -> int:
        """The position behind *token*, which is not at *at* as a whole: cut within (``...`` and *end* follow)."""
        same = at
        limit = min(len(self.text), at + len(token))
        while same < limit and self.text[same] == token[same - at]:
            same += 1
        # The text of the token may itself have dots where the cut's dots begin.
        for dots in range(4):
            start = same - dots
            if start >= at and self.text.startswith("..." + end, start):
                self.size = True
                self.matched += start > at
                return start + 3 + len(end)
        raise _Foreign

    def _chars(self, text: str, quote: str, at: int) -> int:
        self._stop(at)
        if not self.text.startswith(quote, at):
            raise _Foreign
        inside = at + len(quote)
        if len(text) > len(self.text):  # cannot be whole: look no further than the header goes
            text = text[: len(self.text)].replace("'", "\\'")
        elif self.text.startswith(text + "'", inside):
            self.matched += 1
            return inside + len(text) + 1
        return self._cut(text, inside, "'")

    def _bytes(self, value: bytes, at: int) -> int:
        prefix = value[: len(self.text)]
        try:
            text = prefix.decode()
        except UnicodeDecodeError:
            text = prefix.hex()
        return self._chars(text if len(prefix) == len(value) else text + " " * len(self.text), "b'", at)

    def _container(self, value: Any, openers: str, at: int, level: int) -> int:
        self._stop(at)
        text = self.text
        end = ""
        if isinstance(value, (set, frozenset)):
            name = f"{type(value).__name__}("
            if not value:
                return self._token(name + ")", at)
            if text.startswith(name + "{", at):  # "frozenset({1})"
                at += len(name)
                end = ")"
        if at >= len(text) or text[at] not in openers:
            raise _Foreign
        if text.startswith("...", at + 1):
            self._deep(level)
            return self._left_out(at + 1, len(end))
        at += 1
        first = True
        for member in value.items() if isinstance(value, dict) else value:
            if not first:
                at = self._punctuation(", ", at)
            first = False
            at = self._item(member, at, level + 1) if isinstance(value, dict) else self.match(member, at, level + 1)
        return self._close(at) + len(end)

    def _left_out(self, at: int, end: int) -> int:
        """The position behind "...]", which Celery before 5.7 also cuts by size: "......", or "...]..." if it just fits."""
        more = at
        while self.text[more : more + 1] == ".":
            more += 1
        if more > at + 3:
            self.size = True
            return more + self.text.startswith((")", "]", "}"), more)
        at = self._close(more) + end
        if self.text.startswith("...", at):
            self.size = True
            at += 3
        return at

    def _item(self, item: tuple[Any, Any], at: int, level: int) -> int:
        key, value = item
        self._stop(at)
        if isinstance(key, str) and self.text.startswith(key + ": ", at):  # sent as an int key, came as text
            at += len(key)
        else:
            try:
                at = self.read(key, at, 0)
            except _Foreign:
                at = self._skip(at, ": ", 0)
        return self.match(value, self._punctuation(": ", at), level)

    def _close(self, at: int) -> int:
        self._stop(at)
        for closer in (",)", ")", "]", "}"):
            if self.text.startswith(closer, at):
                return at + len(closer)
        raise _Foreign
