"""Reads a header side by side with its value, where the dots alone do not tell what was cut.

A serializer changes types: JSON turns tuples into lists and int keys into text. A
member that does not match for that reason is skipped and judged by its dots.
After too many skips the walk gives up, so that its time is linear in the header.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from numbers import Number
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Types whose own repr is safe, and is what saferepr shows.
_REPR_TYPES: Final = (Decimal, UUID, datetime, date, time, timedelta)
#: Types that no serializer changes.
_PLAIN: Final = (str, int, float, bool, type(None))
_OPENERS: Final = {list: "[(", tuple: "([", dict: "{", set: "{", frozenset: "{"}
_CLOSERS: Final = (",)", ")", "]", "}")
_TOKEN: Final = re.compile(r"'|[(\[{](?:\.\.\.,?[)\]}])?|[)\]}]|, (?:\.\.\.)?|: |\.\.\.")

#: How often each character may be skipped, on average.
PASSES: Final = 4


class _CutError(Exception):
    """The header was cut here, between two tokens: only closing brackets follow."""


class MismatchError(Exception):
    """The header does not show the value here."""


class HeaderWalk:
    """Reads one header. Most methods take a position, and return the one after what they matched."""

    def __init__(self, header: str) -> None:
        self.text = header
        self.size = False
        """Whether it was cut by size."""
        self.depth = 0
        """The lowest level at which a container was left out; 0: none was."""
        self.matched = self.mismatched = 0
        """Members shown as expected, and members of
        ``_PLAIN`` types that are not."""
        self._budget = PASSES * len(header) + 1000  # characters that may still be skipped

    def run(self, value: Any) -> None:
        """Read the whole header.

        Raises:
            MismatchError: it does not show *value*.
        """
        try:
            if self.read(value, 0, 0) != len(self.text):
                raise MismatchError
        except _CutError:
            self.size = True

    def read(self, value: Any, at: int, level: int) -> int:
        """The position behind *value*, which stands at *at* within *level* containers."""
        self._check_cut(at)
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
        raise MismatchError

    def _container(self, value: Any, openers: str, at: int, level: int) -> int:
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
            raise MismatchError
        if text.startswith("...", at + 1):
            self._note_depth(level)
            return self._after_depth_cut(at + 1, len(end))
        at += 1
        first = True
        for member in value.items() if isinstance(value, dict) else value:
            if not first:
                at = self._expect(at, ", ")
            first = False
            at = self._item(member, at, level + 1) if isinstance(value, dict) else self._member(member, at, level + 1)
        return self._expect(at, *_CLOSERS) + len(end)

    def _note_depth(self, level: int) -> None:
        self.depth = min(self.depth or level, level)

    def _after_depth_cut(self, at: int, end: int) -> int:
        """After "...]". Celery before 5.7 may cut that by size: "......", or "...]..." where it just fits."""
        more = at
        while self.text[more : more + 1] == ".":
            more += 1
        if more > at + 3:
            self.size = True
            return more + self.text.startswith((")", "]", "}"), more)
        at = self._expect(more, *_CLOSERS) + end
        if self.text.startswith("...", at):
            self.size = True
            at += 3
        return at

    def _item(self, item: tuple[Any, Any], at: int, level: int) -> int:
        key, value = item
        self._check_cut(at)
        if isinstance(key, str) and self.text.startswith(key + ": ", at):  # sent as an int key, came as text
            at += len(key)
        else:
            try:
                at = self.read(key, at, 0)
            except MismatchError:
                at = self._skip(at, ": ", 0)
        return self._member(value, self._expect(at, ": "), level)

    def _member(self, value: Any, at: int, level: int) -> int:
        """The position after a member. It is skipped if it does not match."""
        try:
            return self.read(value, at, level)
        except MismatchError:
            self.mismatched += type(value) in _PLAIN
            return self._skip(at, ", ", level)

    def _skip(self, at: int, stop: str, level: int) -> int:
        """The position of the next *stop* outside texts and brackets, or of the bracket that closes the container."""
        opened: list[bool] = []  # brackets: whether of an object's repr, which a cut leaves open
        for mark, start in self._tokens(at):
            if mark == ", ...":
                raise _CutError
            if mark == "...":
                self.size = True
                while opened and opened[-1]:
                    opened.pop()
            elif len(mark) > 2 and mark[0] in "([{":  # noqa: PLR2004 - "[...]"
                self._note_depth(level + len(opened))
            elif mark in "([{":
                opened.append(self.text[max(0, start - 1)].isalnum())
            elif mark in ")]}":
                if not opened:
                    return start
                opened.pop()
            elif mark == stop and not opened:
                return start
        raise MismatchError

    def _tokens(self, at: int) -> Iterator[tuple[str, int]]:
        """Punctuation from *at* on, with positions. Of a text, only its first quote."""
        while self._budget > 0 and (match := _TOKEN.search(self.text, at)):
            mark, before = match.group(), at
            at = self._after_text(match.start()) if mark == "'" else match.end()
            self._budget -= at - before
            yield mark, match.start()

    def _after_text(self, at: int) -> int:
        """The position behind the text that begins at *at*. A quote after a backslash ends it only if no other does."""
        last, end = at, self.text.find("'", at + 1)
        while end > at + 1 and self.text[end - 1] == "\\":
            last, end = end, self.text.find("'", end + 1)
        return (last if end < 0 else end) + 1

    def _check_cut(self, at: int) -> None:
        """Raise ``_CutError`` where the header was cut between two tokens."""
        if self.text.startswith(", ...", at):
            raise _CutError

    def _expect(self, at: int, *tokens: str) -> int:
        self._check_cut(at)
        for token in tokens:
            if self.text.startswith(token, at):
                return at + len(token)
        raise MismatchError

    def _token(self, token: str, at: int) -> int:
        if not self.text.startswith(token, at):
            return self._cut(token, at)
        self.matched += 1
        at += len(token)
        if self.text.startswith("...", at):  # a token that just fits gets dots too
            self.size = True
            at += 3
        return at

    def _chars(self, text: str, quote: str, at: int) -> int:
        if not self.text.startswith(quote, at):
            raise MismatchError
        inside = at + len(quote)
        if len(text) > len(self.text):  # cut: only as much as the header has can match
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

    def _cut(self, token: str, at: int, end: str = "") -> int:
        """After a *token* that begins at *at* and was cut: ``...`` and *end* follow a part of it."""
        same = at
        limit = min(len(self.text), at + len(token))
        while same < limit and self.text[same] == token[same - at]:
            same += 1
        # The token's own text may end in dots where the cut's dots begin.
        for dots in range(4):
            start = same - dots
            if start >= at and self.text.startswith("..." + end, start):
                self.size = True
                self.matched += start > at
                return start + 3 + len(end)
        raise MismatchError
