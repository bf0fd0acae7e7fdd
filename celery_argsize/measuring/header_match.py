"""Reads a header side by side with the value that it shows, where its looks do not settle what was cut.

A serializer changes types on the way: JSON turns tuples into lists and int keys into
text. A member that does not match for that reason is passed over and judged by its
looks. A walk that passes over too much gives up, so that the time is linear in the
header.
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

#: Types whose own repr is safe to ask for and is what saferepr shows.
_REPR_TYPES: Final = (Decimal, UUID, datetime, date, time, timedelta)
#: Types that no serializer changes.
_PLAIN: Final = (str, int, float, bool, type(None))
_OPENERS: Final = {list: "[(", tuple: "([", dict: "{", set: "{", frozenset: "{"}
_CLOSERS: Final = (",)", ")", "]", "}")
_TOKEN: Final = re.compile(r"'|[(\[{](?:\.\.\.,?[)\]}])?|[)\]}]|, (?:\.\.\.)?|: |\.\.\.")

#: How often each character may be passed over, on average.
PASSES: Final = 4


class _CutError(Exception):
    """The header was cut between two tokens here: only closing brackets follow."""


class MismatchError(Exception):
    """The header does not show the value here."""


class HeaderWalk:
    """Reads one header against a value. Most methods take a position, and return the one behind what they matched."""

    def __init__(self, header: str) -> None:
        self.text = header
        self.size = False
        """Whether it was cut by size."""
        self.depth = 0
        """The lowest level at which a container was left out; 0: none was."""
        self.matched = self.mismatched = 0
        """Members that look as they should, and members of plain types that do not."""
        self._left = PASSES * len(header) + 1000  # characters that may still be passed over

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
        self._stop(at)
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
            self._left_out(level)
            return self._behind_left_out(at + 1, len(end))
        at += 1
        first = True
        for member in value.items() if isinstance(value, dict) else value:
            if not first:
                at = self._expect(at, ", ")
            first = False
            at = self._item(member, at, level + 1) if isinstance(value, dict) else self._member(member, at, level + 1)
        return self._expect(at, *_CLOSERS) + len(end)

    def _left_out(self, level: int) -> None:
        self.depth = min(self.depth or level, level)

    def _behind_left_out(self, at: int, end: int) -> int:
        """Behind "...]". Celery before 5.7 cuts that by size too: "......", or "...]..." where it just fits."""
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
        self._stop(at)
        if isinstance(key, str) and self.text.startswith(key + ": ", at):  # sent as an int key, came as text
            at += len(key)
        else:
            try:
                at = self.read(key, at, 0)
            except MismatchError:
                at = self._skip(at, ": ", 0)
        return self._member(value, self._expect(at, ": "), level)

    def _member(self, value: Any, at: int, level: int) -> int:
        """Behind a member. One whose type a serializer may have changed is passed over."""
        try:
            return self.read(value, at, level)
        except MismatchError:
            self.mismatched += type(value) in _PLAIN
            return self._skip(at, ", ", level)

    def _skip(self, at: int, stop: str, level: int) -> int:
        """The position of the next *stop* outside texts and brackets, or of the bracket that closes the container."""
        opened: list[bool] = []  # brackets; whether of an object's repr, which a cut leaves open
        for mark, start in self._tokens(at):
            if mark == ", ...":
                raise _CutError
            if mark == "...":
                self.size = True
                while opened and opened[-1]:
                    opened.pop()
            elif len(mark) > 2 and mark[0] in "([{":  # noqa: PLR2004 - "[...]"
                self._left_out(level + len(opened))
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
        """Punctuation from *at* on, and where it stands; of a text, the quote that opens it."""
        while self._left > 0 and (match := _TOKEN.search(self.text, at)):
            mark, before = match.group(), at
            at = self._behind_text(match.start()) if mark == "'" else match.end()
            self._left -= at - before
            yield mark, match.start()

    def _behind_text(self, at: int) -> int:
        """The position behind the text that begins at *at*. A quote after a backslash ends it only if no other does."""
        last, end = at, self.text.find("'", at + 1)
        while end > at + 1 and self.text[end - 1] == "\\":
            last, end = end, self.text.find("'", end + 1)
        return (last if end < 0 else end) + 1

    def _stop(self, at: int) -> None:
        """Raise ``_CutError`` where the header was cut between two tokens."""
        if self.text.startswith(", ...", at):
            raise _CutError

    def _expect(self, at: int, *tokens: str) -> int:
        self._stop(at)
        for token in tokens:
            if self.text.startswith(token, at):
                return at + len(token)
        raise MismatchError

    def _token(self, token: str, at: int) -> int:
        if not self.text.startswith(token, at):
            return self._cut(token, at)
        self.matched += 1
        at += len(token)
        if self.text.startswith("...", at):  # one that just fits gets dots all the same
            self.size = True
            at += 3
        return at

    def _chars(self, text: str, quote: str, at: int) -> int:
        if not self.text.startswith(quote, at):
            raise MismatchError
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

    def _cut(self, token: str, at: int, end: str = "") -> int:
        """Behind a *token* that begins at *at* and was cut within: ``...`` and *end* follow."""
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
