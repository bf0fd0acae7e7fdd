"""The size of a value as compact JSON, in characters and in UTF-8 bytes.

Exactly that of ``json.dumps(value, ensure_ascii=False, separators=(",", ":"))``. What
JSON lacks, such as a datetime or a UUID, has the form that kombu's encoder sends.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from celery_argsize.measuring.foreign import json_size
from celery_argsize.measuring.pure import MAX_CHARS
from celery_argsize.measuring.walk import walk

#: What ``measure_json_size`` gives for a value that has no JSON form.
UNMEASURABLE: Final = -1


class Size(NamedTuple):
    """The size of one value as compact JSON."""

    chars: int
    """Length of the text in characters (Unicode code points)."""
    bytes: int
    """Length of the text in UTF-8."""


def measure_json_size(obj: object) -> int:
    """Characters of *obj* as compact JSON, ``len(json.dumps(obj, ensure_ascii=False, separators=(",", ":")))``.

    What JSON lacks is sized as kombu would send it. Never raises: a value
    that has no JSON form at all (a cycle, a socket, a structure nested too
    deep) gives ``UNMEASURABLE`` (-1).
    """
    aside: list[Any] = []
    figures = walk(obj, aside)
    if figures is not None and not aside:  # takes less time than a Size
        return figures[0]
    size = _size(figures, aside)
    return UNMEASURABLE if size is None else size.chars


def _size(figures: tuple[int, ...] | None, aside: list[Any]) -> Size | None:
    if figures is None:
        return None
    chars, size, *_ = figures
    if aside:
        try:
            more_chars, more_bytes = json_size(aside)
        except Exception:  # noqa: BLE001 - objects' own code may raise anything
            return None
        chars += more_chars
        size += more_bytes
    return Size(chars, size) if chars <= MAX_CHARS else None


class Walked:
    """A value, and what one walk through it found."""

    __slots__ = ("aside", "figures", "size", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        #: Leaves that JSON lacks, each followed by its level.
        self.aside: list[Any] = []
        #: ``walk.Figures``, without what is in ``aside``. ``None``: too deep or too large.
        self.figures = walk(value, self.aside)
        #: As compact JSON; ``None`` if it has no JSON form.
        self.size = _size(self.figures, self.aside)
