"""The interface of stores, and the batches that workers give them."""

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
    """A name that no other process ever has."""
    return f"{hostname or platform.node()}:{os.getpid()}:{uuid.uuid4().hex}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Figures for a store. A writer sends it again, unchanged, until a reply comes."""

    writer: str
    """Its ``writer_name``."""
    sequence: int
    """Rises by one with each batch of a writer, from 1."""
    tasks: Mapping[str, TaskStats]
    origins: Mapping[str, Mapping[str, Sighting]] = field(default_factory=dict)
    """Sightings by host, then by ``kind:part:task``."""


class Store(Protocol):
    """Keeps the figures of one app. Methods raise ``StoreError``."""

    @property
    def where(self) -> str:
        """Its address for people, without secrets."""

    @property
    def shared(self) -> bool:
        """Whether other processes see these figures."""

    def apply(self, batch: Batch, failed: int = 0) -> None:
        """Add *batch*, unless it was added before.

        *failed*: the writer's failed attempts since its last success.

        Raises:
            StoreError: no reply, or an error; send the same batch again.
        """

    def read(self, fields: tuple[str, ...] = ...) -> Figures:
        """All figures, as of one moment.

        A store may leave out the fields that begin with none of *fields*.
        """

    def read_origins(self) -> Mapping[str, Mapping[str, Sighting]]:
        """Sightings by host, then by ``kind:part:task``."""

    def reset(self, task: str | None = None) -> int:
        """Forget *task*, or all tasks. Returns how many had figures."""

    def close(self) -> None:
        """Close its connections. The next use opens them again."""
