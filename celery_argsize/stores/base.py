"""What a store is: it adds a batch exactly once, gives all figures, forgets on request."""

from __future__ import annotations

import os
import platform
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.figures.counters import Figures, TaskStats
    from celery_argsize.figures.origins import Sighting


def writer_name(hostname: str) -> str:
    """A name for this process that no other has or will have."""
    return f"{hostname or platform.node()}:{os.getpid()}:{uuid.uuid4().hex}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Stats on their way to a store. Sent again unchanged if no reply came."""

    writer: str
    """Its ``writer_name``."""
    sequence: int
    """Rises by one with each batch of a writer."""
    tasks: Mapping[str, TaskStats]
    origins: Mapping[str, Mapping[str, Sighting]] = field(default_factory=dict)
    """Sightings by host."""


class Store(Protocol):
    """Keeps the figures of one app. Methods raise ``StoreError``."""

    @property
    def where(self) -> str:
        """What it is and where, for people; without secrets."""

    @property
    def shared(self) -> bool:
        """Whether other processes see it too."""

    def apply(self, batch: Batch, failed: int = 0) -> None:
        """Add *batch* once. *failed*: how often its writer failed since it last wrote.

        Raises:
            StoreError: no reply, or an error; send the same batch again.
        """

    def read(self, fields: tuple[str, ...] = ...) -> Figures:
        """All figures of one moment; perhaps only fields that begin with one of *fields*."""

    def read_origins(self) -> Mapping[str, Mapping[str, Sighting]]:
        """Sightings by host."""

    def reset(self, task: str | None = None) -> int:
        """Forget the figures of *task*, or all; return how many tasks had any."""

    def close(self) -> None:
        """Give back what it holds; it may be used again."""
