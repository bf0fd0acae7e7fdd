"""Gives an acceptance test a broker, an environment for its worker, a producer, and what the oracle counted."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from celery import Celery

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def json_lines(file: Path) -> list[Any]:
    """The lines of JSON in *file*, as tuples. A last line that is still being written is left out."""
    whole, _, _ = file.read_text().rpartition("\n")
    return [tuple(json.loads(line)) for line in whole.splitlines()]


class Scene:
    """The app of tests/support/apps/workload.py on one broker."""

    def __init__(self, folder: Path, broker: str, backend: str | None) -> None:
        self.folder = folder
        self.broker = broker
        self.backend = backend
        self.oracle_file = folder / "oracle.jsonl"
        self.producer = Celery("workload", broker=broker, backend=backend)
        self.figures_url = broker  # the Redis with the figures

    def env(self, settings: dict[str, Any] | None = None, conf: dict[str, Any] | None = None) -> dict[str, str]:
        env = {
            **os.environ,
            "TEST_BROKER": self.broker,
            "TEST_ORACLE": str(self.oracle_file),
            "TEST_SETTINGS": json.dumps(settings or {}),
            "TEST_CONF": json.dumps(conf or {}),
            "C_FORCE_ROOT": "1",
        }
        return {**env, "TEST_BACKEND": self.backend} if self.backend else env

    def send(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.producer.send_task(name, args, kwargs, ignore_result=True)

    def send_many(self, tasks: Iterable[tuple[str, list[Any], dict[str, Any]]]) -> None:
        """Send *tasks* (name, args, kwargs) over one connection."""
        with self.producer.connection_for_write() as connection, self.producer.amqp.Producer(connection) as producer:
            for name, args, kwargs in tasks:
                self.producer.send_task(name, args, kwargs, producer=producer, ignore_result=True)

    def oracle(self) -> list[tuple[str, str, int, int]]:
        return json_lines(self.oracle_file) if self.oracle_file.exists() else []

    def truth(self) -> dict[str, tuple[int, int, int, int, int]]:
        """What the oracle counted. Task name → runs, sum and max of args, sum and max of kwargs."""
        seen: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for name, _, args, kwargs in self.oracle():
            seen[name].append((args, kwargs))
        return {
            name: (
                len(sizes),
                sum(a for a, _ in sizes),
                max(a for a, _ in sizes),
                sum(k for _, k in sizes),
                max(k for _, k in sizes),
            )
            for name, sizes in seen.items()
        }


def figures(summary: Any) -> dict[str, tuple[int, int, int, int, int]]:
    """The figures of *summary* in the form of ``Scene.truth``."""
    return {
        task.name: (
            task.count,
            round(task.args.mean * task.args.count),
            task.args.max,
            round(task.kwargs.mean * task.kwargs.count),
            task.kwargs.max,
        )
        for task in summary.tasks
    }
