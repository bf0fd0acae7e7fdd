"""Makes up the files that the tasks work on, and their tags. This module does not use Celery.

The files of a folder are random, with the folder's name as the seed. So each scan of a folder finds the same files.
"""

from __future__ import annotations

import hashlib
import unicodedata
from itertools import islice
from pathlib import PurePosixPath
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["INSERT_SIZE", "chunks", "count_runs", "list_files", "read_tags"]

#: Most records in one ``insert``.
INSERT_SIZE: Final = 40

ARTISTS: Final = ("Ålesund Kvartett", "Café Zürich", "Dvořákova Pouť", "La Niña Eléctrica", "Sól & Máni", "雨の音楽隊")
WORDS: Final = (
    "Água",
    "Blå",
    "Cœur",
    "Étude",
    "Fjörður",
    "Große",
    "Luz",
    "Mañana",
    "Nocturne",
    "Øre",
    "Żurawie",
    "夜想曲",
)
FORMATS: Final = ("flac", "mp3", "ogg")
GENRES: Final = ("ambient", "chanson", "folk", "fuga", "jazz", "post-rock")
MOODS: Final = ("calm", "bright", "déjà vu", "mélancolique")

_T = TypeVar("_T")


def list_files(folder: str, albums: int) -> list[str]:
    """The paths of all tracks of the *albums* in *folder*."""
    random = Random(folder)
    return [path for _ in range(albums) for path in _album(folder, random)]


def _album(folder: str, random: Random) -> Iterator[str]:
    artist, kind = random.choice(ARTISTS), random.choice(FORMATS)
    album = f"{' '.join(random.sample(WORDS, 2))} ({random.randint(1958, 2024)})"
    for track in range(1, random.randint(6, 14)):
        yield f"{folder}/{artist}/{album}/{track:02} - {' '.join(random.sample(WORDS, 3))}.{kind}"


def read_tags(path: str) -> dict[str, Any]:
    """The tags of the file at *path*."""
    random = Random(path)
    file = PurePosixPath(path)
    title = file.stem.partition(" - ")[2]
    return {
        "path": path,
        "title": title,
        "sort_title": unicodedata.normalize("NFKD", title).casefold(),
        "artist": file.parts[-3],
        "album": file.parts[-2],
        "seconds": round(random.uniform(90, 900), 3),
        "fingerprint": hashlib.sha256(path.encode()).hexdigest(),
        "tags": {
            "genres": random.sample(GENRES, 2),
            "moods": [{"name": mood, "weight": round(random.random(), 2)} for mood in random.sample(MOODS, 2)],
        },
    }


def chunks(items: Sequence[_T], size: int) -> Iterator[list[_T]]:
    """Split *items* into lists of *size*. The last one may be shorter."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def count_runs(folder: str, albums: int, batch_size: int) -> int:
    """How many tasks run when *folder* is scanned: the scan, its batches, and their inserts."""
    batches = list(chunks(list_files(folder, albums), batch_size))
    return 1 + len(batches) + sum(len(list(chunks(batch, INSERT_SIZE))) for batch in batches)
