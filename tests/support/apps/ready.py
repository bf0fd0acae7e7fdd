"""Creates the file TEST_READY when the worker is ready. Test apps import this, as a worker's log may be silent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import signals


def tell(**_: Any) -> None:
    if "TEST_READY" in os.environ:
        Path(os.environ["TEST_READY"]).touch()


signals.worker_ready.connect(tell, weak=False)
