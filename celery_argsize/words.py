"""Text in columns, as wide as a terminal shows it: most characters take one place, some take two, some none.

Pure. What is in the columns is the business of ``report``, ``diff`` and ``watch``.
"""

from __future__ import annotations

import time
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence


def counted(number: int, what: str) -> str:
    """How many of *what*, a word in the singular: ``1 run``, ``1,234 runs``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def when(moment: float) -> str:
    """A *moment*, in seconds since the epoch, for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


ELLIPSIS: Final = "…"

#: Categories of characters that are drawn onto the one before, or not at all.
_NO_PLACE: Final = ("Mn", "Me", "Cf")


def printable(text: str) -> str:
    """*text* with what could move the cursor or hide other text written as an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def width(text: str) -> int:
    """How many places *text* takes on a terminal."""
    return len(text) if text.isascii() else sum(map(_places, text))


def _places(char: str) -> int:
    if unicodedata.category(char) in _NO_PLACE:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def pad(text: str, places: int, *, right: bool = False) -> str:
    """*text* with spaces up to *places*, before it if *right*."""
    spaces = " " * (places - width(text))
    return spaces + text if right else text + spaces


def cut(text: str, places: int) -> str:
    """*text* in at most *places*; what does not fit gives way to an ellipsis at its end."""
    if width(text) <= places:
        return text
    return _head(text, places - 1) + ELLIPSIS if places > 0 else ""


def shorten(text: str, places: int) -> str:
    """*text* in at most *places*; an ellipsis in its middle stands for what does not fit."""
    if width(text) <= places:
        return text
    if places <= 0:
        return ""
    tail = _head(text[::-1], (places - 1) // 2)[::-1]
    return _head(text, places - 1 - width(tail)) + ELLIPSIS + tail


def _head(text: str, places: int) -> str:
    """As much of the beginning of *text* as *places* hold."""
    taken = 0
    for end, char in enumerate(text):
        taken += _places(char)
        if taken > places:
            return text[:end]
    return text


def table(rows: Sequence[tuple[str, ...]], *, right: bool) -> list[str]:
    """*rows* with aligned columns; *right* aligns all but the first to the right, for numbers."""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [pad(first, widths[0])]
        cells += [pad(cell, places, right=right) for cell, places in zip(rest, widths[1:], strict=True)]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def size(amount: float) -> str:
    """*amount* bytes, for people."""
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if amount >= unit:
            return f"{amount / unit:,.1f} {name}"
    return f"{amount:,.0f} bytes"


def duration(seconds: float) -> str:
    """How long *seconds* are, for people."""
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
