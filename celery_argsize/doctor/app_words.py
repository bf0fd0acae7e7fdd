"""Whether a process that was started with ``-A WORD`` is one of this app; nothing is imported for it."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["is_of_app", "word_of"]


def word_of(app: Any) -> str:
    """What to write after ``-A`` for *app*, as far as it can be told."""
    main = str(app.main or "")
    spelled = [name for name in (main, f"{main}.celery", f"{main}.app") if app in _values(name)]
    return spelled[0] if spelled and main != "__main__" else main if main not in {"", "__main__"} else "proj"


def is_of_app(app: Any, word: str) -> bool:
    """Whether ``-A`` *word* means *app*: its name, or a module that has it."""
    module = word.partition(":")[0]
    if not module:
        return False
    spelled = {module, f"{module}.celery", f"{module}.app", module.rpartition(".")[0]}
    return module == app.main or any(app in _values(name) for name in spelled if name)


def _values(module: str) -> list[Any]:
    return [value for value in vars(sys.modules[module]).values() if _is_app(value)] if module in sys.modules else []


def _is_app(value: object) -> bool:
    return any(base.__module__ == "celery.app.base" for base in type(value).__mro__)
