"""Tells what Celery cut from a header: the ``argsrepr`` or ``kwargsrepr`` of a message.

A header that was cut has ``...`` in it. Mostly the dots outside quotes tell the
rest. Where dots or quotes may be part of a text (``'Loading...'``), the texts of the
value that have them are first taken out of the header.

Source of the forms: ``celery.utils.saferepr`` and ``celery.utils.text.truncate``.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from celery_argsize.measuring.pure import MAX_LEVELS
from celery_argsize.measuring.repr_shape import outside_quotes

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Twice the highest tier, in characters. A longer header counts as unknown.
MAX_HEADER: Final = 4 * 1024 * 1024
#: Most texts of a value that are looked for in a header.
MOST_TEXTS: Final = 50

Verdict = Literal["intact", "size", "depth", "both", "custom", "unknown"]
VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)

#: The verdicts for a repr that was cut, and what cut it.
CAUSES: Final = {"size": "size", "depth": "depth", "both": "size and depth"}
CUTS: Final = tuple(CAUSES)

#: Celery's ``argsrepr_maxsize`` and ``kwargsrepr_maxsize``, in characters
#: (celery.app.amqp.AMQP).
DEFAULT_LIMIT: Final = 1024

#: Celery's default for ``task_repr_maxlevels``. Fixed before 5.7.
DEFAULT_LEVELS: Final = 3

#: Dots where a cut can be: at the end of a text, member, container or header.
_CUT_DOTS: Final = re.compile(r"\.\.\.(?:['\])},]|$)")
#: How a container begins in saferepr, up to its first member.
_SAFEREPR: Final = re.compile(r"[(\[{]+(?:[\])},.'\"<\d-]|b'|None\b|True\b|False\b|nan\b|inf\b|[A-Za-z_][\w.]*\()")
#: Quotes that cannot be paired: one that may end a text in a backslash or be part
#: of it, and those in bytes, which saferepr does not escape.
_UNPAIRED: Final = re.compile(r"\\'(?:[,\])}]|: |$)|(?:[(\[{]|, |: )b'")
_CONTAINERS: Final = (list, tuple, set, frozenset)
_SIZED: Final = frozenset({*_CONTAINERS, dict, str, bytes})
#: A container left out by depth, such as ``[...]``. A bracket after a letter
#: belongs to an object's repr.
_DEEP: Final = re.compile(r"(?<!\w)(?:frozenset\()?[(\[{]\.{3,}(?:,\)|[)\]}])?")
#: Opens an object's repr, as in ``Point(``; a whole one; one that was cut.
_CALL: Final = re.compile(r"\w\(")
_WHOLE_CALL: Final = re.compile(r"(?<!\w)(?!frozenset\()\w[\w.]*\((?:(?!\.\.\.)[^()\[\]{}])*\)")
_CUT_CALL: Final = re.compile(r"(?<!\w)(?!frozenset\()\w[\w.]*\([^()\[\]{}]*?\.\.\.")
#: What may follow a text.
_TEXT_END: Final = r"(?=, |: |,?[)\]}]|$)"
#: Stands for an escaped quote. No text has this character by chance.
_APOSTROPHE: Final = "\ue027"
_DIGITS: Final = "0123456789-"
#: Characters with which the repr of a member can begin, by its type.
_BEGINNINGS: Final = {str: "'", int: _DIGITS, float: _DIGITS + "ni", bool: "TF", list: "[(", tuple: "([", dict: "{"}


class Reading(NamedTuple):
    """What a header shows."""

    verdict: Verdict
    """``intact``; cut by ``size``, ``depth`` or ``both``; ``custom``: the
    caller's own text; ``unknown``: no header."""
    levels: int = 0
    """The sender's ``task_repr_maxlevels`` if it was cut by depth, else 0."""
    limit: int = 0
    """Upper bound of the sender's limit in characters if it
    was cut by size. 0: not known."""


_INTACT: Final = Reading("intact")
_CUSTOM: Final = Reading("custom")


def read_header(header: object, value: object) -> Reading:
    """What Celery did to *header*, the ``argsrepr`` or ``kwargsrepr`` of *value*.

    A text of the caller's own (``argsrepr=`` of ``apply_async``) counts as intact if it begins and ends as the repr of
    *value* would, is no shorter than any member, and has no dots where a cut can be.
    """
    if type(header) is not str or not header or len(header) > MAX_HEADER:
        return Reading("unknown")
    try:
        if not begins_like(header, value):
            return _CUSTOM
        if "..." in header and _CUT_DOTS.search(header) is not None:
            return _read_marks(header, value)
        return _CUSTOM if _has_longer_member(value, len(header)) else _INTACT
    except Exception:  # noqa: BLE001 - a value that does not match, is too deep, or whose code raises
        return _read_alone(header)


def _read_marks(header: str, value: object) -> Reading:
    """The reading of a header with dots where a cut can be."""
    if _SAFEREPR.match(header) is None:
        return _CUSTOM
    limit, first = _limit(header), header.find("...")
    if limit and first >= limit - 4 and header[first - 1] not in "([{":
        return Reading("size", 0, limit)  # the only dots follow the last member shown, or end it
    reading, cut_texts = _read_outside_texts(header)
    # Texts that end in dots tell nothing more if members were left out, or a text is longer than the header.
    if reading is not None and (not cut_texts or limit or _has_longer_member(value, len(header))):
        return reading
    texts = _Texts(value, len(header))
    reading, cut_texts = _read_outside_texts(texts.taken_out_of(header), sure=True)
    if reading is not None and reading.levels:  # texts that are deeper are not in the header
        texts = _Texts(value, len(header), reading.levels)
        reading, cut_texts = _read_outside_texts(texts.taken_out_of(header), sure=True)
    if reading is None:
        return _read_alone(header)
    return reading if all(map(texts.may_begin, cut_texts)) else _CUSTOM


def _has_longer_member(value: Any, length: int) -> bool:
    """Whether a member of *value* alone makes the whole repr longer than *length* characters."""
    kind = type(value)
    for member in value.values() if kind is dict else value if kind is list or kind is tuple else ():
        if type(member) in _SIZED and len(member) > length:
            return True
    return False


def begins_like(header: str, value: Any) -> bool:
    """Whether *header* has the brackets of *value*, and begins as its first member would."""
    kind = type(value)
    if kind is list or kind is tuple or issubclass(kind, (list, tuple)):
        opener, closer, first = "([", ")]", value[0] if value else None
    elif issubclass(kind, dict):
        opener, closer, first = "{", "}", next(iter(value), None)
    else:
        return True
    if header[0] not in opener or (header[-1] not in closer and not header.endswith("...")):
        return False  # before Celery 5.7, a cut may take the last bracket too
    if not value:
        return len(header) == 2  # noqa: PLR2004 - "()": the outermost level is never left out
    beginning = _BEGINNINGS.get(type(first))
    return beginning is None or header[1] in beginning or header.startswith(", ...", 1)


def _read_outside_texts(header: str, *, sure: bool = False) -> tuple[Reading | None, list[str]]:
    """The reading by all dots that may be cuts, ``None`` if quotes cannot be paired; and the texts that end in dots.

    *sure*: a quote after a backslash is part of a text.
    """
    texts: list[str] = []
    bare = header
    if "'" in header:
        if not sure and ("b'" in header or "\\'" in header) and _UNPAIRED.search(header) is not None:
            return None, texts
        pieces = header.replace("\\'", _APOSTROPHE).split("'")
        if not len(pieces) % 2:
            return None, texts
        bare = "'".join(pieces[::2])
        texts = [piece for piece in pieces[1::2] if piece.endswith("...")]
    limit = _limit(header)
    size, levels = limit > 0 or bool(texts), 0
    at = bare.find("...")
    if at >= 0 and _CALL.search(bare) is not None:
        bare = _without_calls(bare)
        at = bare.find("...")
    while at >= 0 and not (size and levels):
        if _DEEP.match(bare, at - 1) is None:
            size = True
        elif not levels:
            shown = bare[: at - 1]
            levels = sum(map(shown.count, "([{")) - sum(map(shown.count, ")]}"))
        at = bare.find("...", at + 3)
    if size:
        return Reading("both" if levels else "size", levels, limit), texts
    return (Reading("depth", levels) if levels else _INTACT), texts


def _without_calls(bare: str) -> str:
    """*bare* without the brackets of objects: whole ones, then the open ones of an object that was cut."""
    for pattern, instead in ((_WHOLE_CALL, "x"), (_CUT_CALL, "x...")):
        count = 1
        while count:
            bare, count = pattern.subn(instead, bare)
    return bare


class _Texts:
    """The texts of a value that may be shown in a header of *length* characters."""

    def __init__(self, value: object, length: int, levels: int = MAX_LEVELS) -> None:
        members = [*_members(value, 4 * length + 1000, levels)]
        self._texts = [member for member in members if isinstance(member, str)]
        self._odd = Counter(filter(None, map(_quoted, members)))

    def taken_out_of(self, header: str) -> str:
        """*header* with an empty text in place of each text that has dots or odd quotes."""
        for quoted in sorted(self._odd, key=len, reverse=True)[:MOST_TEXTS]:
            header = re.sub(re.escape(quoted) + _TEXT_END, "''", header, count=self._odd[quoted])
        return header

    def may_begin(self, cut: str) -> bool:
        """Whether a text begins as *cut* does, which ends in dots."""
        shown = cut[:-3].replace(_APOSTROPHE, "'")
        return any(text.startswith(shown) for text in self._texts)


def _quoted(member: Any) -> str | None:
    """*member* as saferepr shows it, if it is a text that has dots or odd quotes."""
    if isinstance(member, bytes):
        try:
            return f"b'{member.decode()}'"
        except UnicodeDecodeError:
            return f"b'{member.hex()}'"
    if isinstance(member, str) and ("..." in member or "'" in member or "\\" in member):
        return "'" + member.replace("'", "\\'") + "'"
    return None


def _members(value: object, most: int, levels: int) -> Iterator[Any]:
    """Up to *most* members of *value*, of its members, and so on down to *levels*, in the order of the repr."""
    todo: list[Any] = [iter((value,))]
    while todo and most > 0:
        most -= 1
        try:
            member = next(todo[-1])
        except StopIteration:
            todo.pop()
            continue
        yield member
        kind = type(member)
        if len(todo) > levels:
            continue
        if issubclass(kind, dict):
            todo.append(chain.from_iterable(zip(dict.__iter__(member), dict.values(member), strict=False)))
        elif issubclass(kind, _CONTAINERS):
            base: Any = next(base for base in _CONTAINERS if issubclass(kind, base))
            todo.append(base.__iter__(member))


def _limit(header: str) -> int:
    """Upper bound of the sender's limit if it cut between members, else 0: saferepr stops there."""
    shown = header.rstrip(")]},")
    return len(shown) - 5 if shown.endswith(", ...") else 0


def _read_alone(header: str) -> Reading:
    """The reading of a header without its value, by the dots outside quotes."""
    bare = outside_quotes(header)
    if _SAFEREPR.match(header) is None or "..." not in bare:
        return _CUSTOM
    deep = len(_DEEP.findall(bare))
    size = bare.count("...") > deep
    return Reading("both" if size and deep else "size" if size else "depth", limit=_limit(header) if size else 0)
