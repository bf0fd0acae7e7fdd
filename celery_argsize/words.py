"""Text for people: numbers, sizes and times in words, columns as wide as on a terminal.

The texts of reports and commands are in ``views`` and ``doctor``.
"""

from __future__ import annotations

import time
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """*number* with *noun*, which is given in the singular: ``1 run``, ``1,234 runs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(amount: float) -> str:
    """*amount*, a number of bytes: ``512 bytes``, ``1.5 KB`` (1 KB = 1,024 bytes)."""
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if abs(amount) >= unit:
            return f"{amount / unit:,.1f} {name}"
    return f"{amount:,.0f} bytes"


def duration(seconds: float) -> str:
    """A time span: ``90 s``, ``5 minutes``, ``2 days``."""
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def when(moment: float) -> str:
    """A date and time in UTC; *moment* is in seconds since the epoch."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def printable(text: str) -> str:
    """*text* with escapes for characters that could move the cursor or hide other text."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def width(text: str) -> int:
    """Columns of a terminal that *text* takes: 2 for an East Asian character, 0 for an accent."""
    if text.isascii():
        return len(text)
    from wcwidth import wcwidth  # noqa: PLC0415 - workers need no widths

    return sum(max(wcwidth(char), 0) for char in text)


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """*text* filled with spaces to *columns*; *right* puts the spaces before it."""
    spaces = " " * (columns - width(text))
    return spaces + text if right else text + spaces


def shorten(text: str, columns: int) -> str:
    """*text* in at most *columns*; an ellipsis in the middle replaces what does not fit."""
    if width(text) <= columns:
        return text
    if columns <= 0:
        return ""
    tail = _head(text[::-1], (columns - 1) // 2)[::-1]
    return f"{_head(text, columns - 1 - width(tail))}…{tail}"


def _head(text: str, columns: int) -> str:
    """The longest beginning of *text* that fits into *columns*."""
    return text[: sum(taken <= columns for taken in accumulate(map(width, text)))]


def table(rows: Sequence[tuple[str, ...]], *, right: bool) -> list[str]:
    """*rows* as lines with aligned columns; *right* aligns all but the first to the right."""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [pad(cell, columns, right=right) for cell, columns in zip(rest, widths[1:], strict=True)]
        lines.append(("  " + "  ".join([pad(first, widths[0]), *cells])).rstrip())
    return lines
