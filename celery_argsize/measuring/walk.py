"""Chooses the walk that measures values: the compiled one where it was built, else its pure-Python twin."""

from __future__ import annotations

import importlib
import os
import platform
import sysconfig
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_argsize.measuring import pure

if TYPE_CHECKING:
    from collections.abc import Callable


def _compiled() -> Any:
    """The compiled module; ``None`` if it was not built, cannot run here, or is not wanted."""
    # Without a global interpreter lock, another thread could change what is being walked through.
    free_threaded = sysconfig.get_config_var("Py_GIL_DISABLED")
    if os.environ.get("CELERY_ARGSIZE_PURE") or free_threaded or platform.python_implementation() != "CPython":
        return None
    try:
        return importlib.import_module("celery_argsize.measuring._compiled")
    except ImportError:
        return None


compiled: Final = _compiled()

#: ``walk(value, aside)``: the ``Figures`` of *value*, as a plain tuple. Other leaves go into *aside*, each followed by
#: its level (0: a key). ``None`` if *value* is too deep or too large to have a size.
walk: Final[Callable[[Any, list[Any]], tuple[int, ...] | None]] = pure.walk if compiled is None else compiled.walk

#: Which walk runs, for people.
NAME: Final = "pure-Python" if compiled is None else "compiled"

#: The place of ``Figures.levels``.
LEVELS: Final = 4


class Figures(NamedTuple):
    """What one walk through a value counts. Its leaves of other types than JSON's are not in it."""

    chars: int
    """Its compact JSON, in characters."""
    bytes: int
    """Its compact JSON in UTF-8."""
    need: int
    """Its whole repr, in characters."""
    escaped: int
    """Its whole repr as a text in ASCII JSON, in characters, without quotes."""
    levels: int
    """Nested containers, itself included."""
    commas: int
    """Separators between members."""
    keys: int
    """Dict items."""
    containers: int
    """Lists, tuples and dicts, itself included."""
    chain_steps: int
    """See ``Shape.chain_steps``."""
    singles: int
    """Lists of one member. A tuple of one, which came as such a list,
    has a comma more in its repr."""
