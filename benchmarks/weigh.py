"""Measures peak memory, and runs work in a forked child: for ``bounds``, ``memory`` and others.

Reads /proc, so it works on Linux only.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import os
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery.utils.saferepr import saferepr

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Weighed", "cut_header", "in_child"]


class Weighed:
    """The memory that this process takes from now on.

    With *trim*, memory that is free in its heap goes back to the system first, so that using it again counts.
    """

    def __init__(self, *, trim: bool = False) -> None:
        gc.collect()
        if trim:
            with suppress(AttributeError):  # only glibc has malloc_trim
                ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak, see proc(5)
        self.before = _status("VmRSS")

    def more(self) -> float:
        """By how many MB its peak is above the memory at the start."""
        return max(0.0, _status("VmHWM") - self.before)


def _status(field: str) -> float:
    """MB of this process: ``VmRSS`` is its resident memory, ``VmHWM`` the peak of that."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def in_child(work: Callable[[], Any]) -> Any:
    """Run *work* in a forked child, and return its result, which must be JSON-able.

    Raises:
        RuntimeError: the child failed. Its traceback is on stderr.
    """
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.write(into, json.dumps(work()).encode())
            code = 0
        except Exception:  # noqa: BLE001 - a forked child must not return to the caller's code
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(into)
    with os.fdopen(out) as pipe:
        text = pipe.read()
    if os.waitpid(pid, 0)[1]:
        message = "the child failed"
        raise RuntimeError(message)
    return json.loads(text)


def cut_header(args: tuple[Any], limit: int) -> str:
    """The repr that Celery would send for *args*, one long argument, cut at *limit* characters."""
    return saferepr((_beginning(args[0], limit),), limit)


def _beginning(value: Any, limit: int) -> Any:
    """The beginning of *value*, longer than *limit* can show. On all of *value*, saferepr would take hours."""
    if isinstance(value, str):
        return value[: 2 * limit]
    members = limit // 3 + 2  # each member takes at least three characters
    return dict(itertools.islice(value.items(), members)) if isinstance(value, dict) else value[:members]
