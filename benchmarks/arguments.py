"""Makes task arguments of six shapes and any size, for ``measure_time``, ``memory`` and ``publish``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["KB", "MB", "SHAPES", "label"]

KB: Final = 1024
MB: Final = 1024 * KB


def label(size: int) -> str:
    """A size in characters as people write it: ``10 KB``, ``2 MB``."""
    return f"{size // MB} MB" if size >= MB else f"{size // KB} KB"


def record(number: int) -> dict[str, Any]:
    """A flat record with 6 keys, about 110 characters of JSON."""
    return {
        "id": 100_000 + number,
        "title": f"Adagio in G minor, take {number % 1000}",
        "artist": "Chamber Ensemble",
        "year": 1950 + number % 70,
        "length": 90 + number % 3600 / 8,
        "explicit": number % 10 == 0,
    }


def nested(number: int) -> dict[str, Any]:
    """A nested record with 5 levels, about 250 characters of JSON."""
    tracks = [{"title": f"Movement {n}", "marks": [number % 97, n]} for n in range(4)]
    label = {"name": "Harmonia", "country": {"code": "FR", "name": "France"}}
    return {"id": 100_000 + number, "album": {"label": label, "tracks": tracks}, "tags": ["baroque", "strings"]}


#: Shape name → function that makes args of about the given number of characters of JSON.
SHAPES: Final[Mapping[str, Callable[[int], tuple[Any, ...]]]] = {
    "records": lambda size: ([record(n) for n in range(max(1, size // 112))],),
    "nested": lambda size: ([nested(n) for n in range(max(1, size // 254))],),
    "ids": lambda size: ([*range(10_000_000, 10_000_000 + size // 9)],),
    "one long text": lambda size: ("All that is measured is known. " * (size // 31),),
    "non-ASCII text": lambda size: ("Été à la forêt, où naît l'œuvre; 音楽の図書館 🎵 " * (size // 48),),
    "dict of dicts": lambda size: ({f"track-{n}": record(n) for n in range(max(1, size // 126))},),
}
