"""Tells what Celery cut from a header: the ``argsrepr`` or ``kwargsrepr`` of a message.

A header that was cut has ``...`` in it. Mostly the dots outside quotes tell the
rest. Where dots may be part of a text (``'Loading...'``), the length of the whole
repr tells, or the header is read side by side with its value (``header_match``).

Source of the forms: ``celery.utils.saferepr`` and ``celery.utils.text.truncate``.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Any, Final, Literal, NamedTuple, get_args

from celery_argsize.measuring.header_match import HeaderWalk
from celery_argsize.measuring.repr_shape import measure_shape, outside_quotes

#: Twice the highest tier, in characters. A longer header counts as unknown.
MAX_HEADER: Final = 4 * 1024 * 1024
#: Most members of a value whose levels are counted.
MAX_MEMBERS: Final = 5000

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
_CONTAINERS: Final = frozenset({list, tuple, dict, set, frozenset})
_SIZED: Final = _CONTAINERS | {str, bytes}
#: A container left out by depth, such as ``[...]``. A bracket after a letter
#: belongs to an object's repr.
_DEEP: Final = re.compile(r"(?<!\w)(?:frozenset\()?[(\[{]\.{3,}(?:,\)|[)\]}])?")
#: Opens an object's repr, as in ``Point(``.
_CALL: Final = re.compile(r"\w\(")
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
        if not _begins_like(header, value):
            return _CUSTOM
        if _CUT_DOTS.search(header) is not None:
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
    reading, dotted_text = _read_outside_texts(header)
    if not dotted_text:
        return reading or _side_by_side(header, value)
    if _has_longer_member(value, len(header)):
        return Reading("size")
    return _INTACT if _is_as_long_as_whole(header, value) else _side_by_side(header, value)


def _has_longer_member(value: Any, length: int) -> bool:
    """Whether a member of *value* alone makes the whole repr longer than *length* characters."""
    kind = type(value)
    for member in value.values() if kind is dict else value if kind is list or kind is tuple else ():
        if type(member) in _SIZED and len(member) > length:
            return True
    return False


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


def _read_outside_texts(header: str) -> tuple[Reading | None, bool]:
    """The reading by the dots outside quotes, ``None`` if that is unclear; whether only texts may be cut."""
    texts, bare = "", header
    if "'" in header:
        if ("b'" in header or "\\'" in header) and _UNPAIRED.search(header) is not None:
            return None, False
        pieces = (header.replace("\\'", "") if "\\" in header else header).split("'")
        if not len(pieces) % 2:
            return None, False
        bare, texts = "'".join(pieces[::2]), "'".join(pieces[1::2]) + "'"
    limit = _limit(header)
    size, levels = limit > 0, 0
    at = bare.find("...")
    while at >= 0 and not (size and levels):
        if _DEEP.match(bare, at - 1) is None:
            size = True
        elif not levels:
            shown = bare[: at - 1]
            if size and "..." in shown and _CALL.search(shown) is not None:
                return None, False  # the bracket of an object that was cut may be open
            levels = sum(map(shown.count, "([{")) - sum(map(shown.count, ")]}"))
        at = bare.find("...", at + 3)
    if size:
        return Reading("both" if levels else "size", levels, limit), False
    if "...'" in texts:
        return None, not levels
    return Reading("depth", levels) if levels else _INTACT, False


def _side_by_side(header: str, value: object) -> Reading:
    walk = HeaderWalk(header)
    walk.run(value)
    if walk.mismatched and not walk.matched:
        return _CUSTOM
    if not walk.size:
        return Reading("depth", walk.depth) if walk.depth else _INTACT
    return Reading("both" if walk.depth else "size", walk.depth, _limit(header))


def _is_as_long_as_whole(header: str, value: object) -> bool:
    """Whether *header* is as long as the whole repr, so that no text in it was cut.

    A cut makes the header shorter, unless the last text lost just as much as the
    dots take. Then only brackets follow it.
    """
    if header.rstrip(")]},").endswith("...'"):
        return False
    _, shape = measure_shape(value, header) or (None, None)
    return shape is not None and shape.need == len(header)


def levels_of(value: Any) -> int:
    """Levels of nested containers in *value*; 0 if it has too many members to count."""
    levels, layer, count = 0, [value], 0
    while layer:
        levels += 1
        count += sum(map(len, layer))
        if count > MAX_MEMBERS:
            return 0
        members = chain.from_iterable(outer.values() if type(outer) is dict else outer for outer in layer)
        layer = [member for member in members if type(member) in _CONTAINERS]
    return levels


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
