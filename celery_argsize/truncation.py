"""Did Celery cut this argsrepr: the header that came with the message, held against the value it describes.

Pure: a text and a value in, a bool out. Cheap where it can be: every cut leaves ``...``, most cuts by size leave it at
the end. Where such a mark may be part of a text (``'Loading...'``), the header is read side by side with the value:
linear in the header, and over at the first cut.

The value is the one the worker got, and a serializer changes types on the way (JSON turns tuples into lists and int
keys into text); what cannot be matched for such reasons is judged by the header alone, outside quotes.

Source of the forms: ``celery.utils.saferepr`` and ``celery.utils.text.truncate``.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from numbers import Number
from typing import Any, Final
from uuid import UUID

__all__ = ["is_truncated"]

#: Types whose own repr is safe to ask for and is what saferepr shows.
_REPR_TYPES: Final = (Decimal, UUID, datetime, date, time, timedelta)
_OPENERS: Final = {list: "[(", tuple: "([", dict: "{", set: "{", frozenset: "{"}
#: Where a cut can be: dots with the end of a text, of a container or of the header behind them, or the next member.
_MARK: Final = re.compile(r"\.\.\.(?:['\])},]|$)")
#: A container that is empty, cut, or begins with a text, a number, a constant, an object or another container.
_SAFEREPR: Final = re.compile(r"[(\[{]+(?:[\])},.'\"<\d-]|b'|None\b|True\b|False\b|nan\b|inf\b|[A-Za-z_][\w.]*\()")
_QUOTED: Final = re.compile(r"'(?:\\'|[^'])*'")
_TOKEN: Final = re.compile(r"'(?:\\'|[^'])*'|[(\[{]|[)\]}]|, |: |\.\.\.")


class _Cut(Exception):  # noqa: N818 - control flow, never leaves this module
    """The header shows a cut here."""


class _Foreign(Exception):  # noqa: N818 - control flow, never leaves this module
    """The header describes something else than the value here."""


def is_truncated(header: object, value: object) -> bool:
    """Whether Celery cut *header*, the ``argsrepr`` or ``kwargsrepr`` of *value*, by size or by depth.

    A header that is missing (``None``) or that the caller wrote itself (``argsrepr=`` of ``apply_async``) was not cut
    by Celery.
    """
    if type(header) is not str or _MARK.search(header) is None:
        return False
    try:
        if header.rstrip(")]},").endswith("..."):  # outside quotes for sure
            return _looks_cut(header)
        return _Reader(header).read(value, 0) != len(header) and _looks_cut(header)
    except _Cut:
        return True
    except Exception:  # noqa: BLE001 - foreign, too deep, or a value whose own code raises
        return _looks_cut(header)


def _looks_cut(header: str) -> bool:
    """The verdict by the header alone: a cut mark outside quotes, in something that looks like saferepr's work."""
    return _SAFEREPR.match(header) is not None and "..." in _QUOTED.sub("", header)


class _Reader:
    """Reads one header against a value. Each method takes a position, and returns the one behind what it matched."""

    def __init__(self, header: str) -> None:
        self.text = header

    def match(self, value: Any, at: int) -> int:
        """A member: one that looks different in the header, as a serializer changed its type, is passed over."""
        try:
            return self.read(value, at)
        except _Foreign:
            return self._skip(at, ", ")

    def _skip(self, at: int, stop: str) -> int:
        depth = 0
        for found in _TOKEN.finditer(self.text, at):
            mark = found.group()
            if mark == "...":
                raise _Cut
            if mark in "([{":
                depth += 1
            elif mark in ")]}":
                if not depth:
                    return found.start()
                depth -= 1
            elif mark == stop and not depth:
                return found.start()
        raise _Foreign

    def read(self, value: Any, at: int) -> int:
        if isinstance(value, str):
            return self._chars(value.replace("'", "\\'") if len(value) < len(self.text) else value, "'", at)
        if isinstance(value, bytes):
            return self._bytes(value, at)
        if isinstance(value, dict):
            return self._container(value, _OPENERS[dict], at)
        for kind in (list, tuple, set, frozenset):
            if isinstance(value, kind):
                return self._container(value, _OPENERS[kind], at)
        if value is None or isinstance(value, _REPR_TYPES):
            return self._token(repr(value), at)
        if isinstance(value, Number):
            return self._token(str(value), at)
        raise _Foreign

    def _stop(self, at: int) -> None:
        """Raise ``_Cut`` where the header was cut between two tokens."""
        if self.text.startswith((", ...", "..."), at):
            raise _Cut

    def _token(self, token: str, at: int) -> int:
        self._stop(at)
        if self.text.startswith(token, at):
            return at + len(token)
        raise self._mismatch(token, at)

    def _mismatch(self, token: str, at: int, end: str = "") -> Exception:
        """What it means that *token* is not at *at*: cut inside it (``...`` and *end* follow), or foreign."""
        same = at
        limit = min(len(self.text), at + len(token))
        while same < limit and self.text[same] == token[same - at]:
            same += 1
        # The text of the token may itself have dots where the cut's dots begin.
        for dots in range(4):
            start = same - dots
            if start >= at and self.text.startswith("..." + end, start):
                return _Cut()
        return _Foreign()

    def _chars(self, text: str, quote: str, at: int) -> int:
        self._stop(at)
        if not self.text.startswith(quote, at):
            raise _Foreign
        inside = at + len(quote)
        if len(text) > len(self.text):  # cannot be whole: look no further than the header goes
            text = text[: len(self.text)].replace("'", "\\'")
        elif self.text.startswith(text + "'", inside):
            return inside + len(text) + 1
        raise self._mismatch(text, inside, "'")

    def _bytes(self, value: bytes, at: int) -> int:
        prefix = value[: len(self.text)]
        try:
            text = prefix.decode()
        except UnicodeDecodeError:
            text = prefix.hex()
        return self._chars(text if len(prefix) == len(value) else text + " " * len(self.text), "b'", at)

    def _container(self, value: Any, openers: str, at: int) -> int:
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
        if text[at : at + 1] not in openers or at >= len(text):
            raise _Foreign
        if text.startswith("...", at + 1):  # "[...]": cut by depth
            raise _Cut
        at += 1
        first = True
        for member in value.items() if isinstance(value, dict) else value:
            if not first:
                at = self._token(", ", at)
            first = False
            at = self._item(member, at) if isinstance(value, dict) else self.match(member, at)
        return self._close(at) + len(end)

    def _item(self, item: tuple[Any, Any], at: int) -> int:
        key, value = item
        self._stop(at)
        if isinstance(key, str) and self.text.startswith(key + ": ", at):  # sent as an int key, came as text
            at += len(key)
        else:
            try:
                at = self.read(key, at)
            except _Foreign:
                at = self._skip(at, ": ")
        return self.match(value, self._token(": ", at))

    def _close(self, at: int) -> int:
        self._stop(at)
        for closer in (",)", ")", "]", "}"):
            if self.text.startswith(closer, at):
                return at + len(closer)
        raise _Foreign
