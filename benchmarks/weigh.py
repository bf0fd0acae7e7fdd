"""What work takes of memory at its peak, in a forked child; for ``bounds`` and ``memory``. Linux only, as /proc is."""

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
    """This process's memory from here on. With *trim*, to take again what is free in its heap counts."""

    def __init__(self, *, trim: bool = False) -> None:
        gc.collect()
        if trim:
            with suppress(AttributeError):  # glibc only
                ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        self.before = _status("VmRSS")

    def more(self) -> float:
        """MB that it took more at its peak."""
        return max(0.0, _status("VmHWM") - self.before)


def _status(field: str) -> float:
    """MB: ``VmRSS`` is what this process has in memory, ``VmHWM`` the most that it had."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def in_child(work: Callable[[], Any]) -> Any:
    """What *work* gives, done in a forked child."""
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.write(into, json.dumps(work()).encode())
            code = 0
        except Exception:  # noqa: BLE001 - a child has nobody to raise to
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
    """The repr that Celery would send of one long argument, cut at *limit*."""
    return saferepr((_beginning(args[0], limit),), limit)


def _beginning(value: Any, limit: int) -> Any:
    """More of *value* than *limit* shows: for all of it, saferepr would take hours, and give the same."""
    if isinstance(value, str):
        return value[: 2 * limit]
    members = limit // 3 + 2  # each takes three characters or more
    return dict(itertools.islice(value.items(), members)) if isinstance(value, dict) else value[:members]
