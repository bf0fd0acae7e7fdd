"""How a setting is written in this app: ``app.conf.x = 1``, or ``CELERY_X = 1`` where it reads a namespace (Django)."""

from __future__ import annotations

from typing import Any

__all__ = ["setting", "spelled"]


def spelled(app: Any, name: str) -> str:
    """The setting *name*, such as ``task_time_limit``, as it is written in the settings of *app*; no app: as it is."""
    namespace = str(getattr(app, "namespace", None) or "").rstrip("_")
    full = f"{namespace}_{name}"
    # As Celery itself does it: the case of the namespace is the case of the whole name.
    return name if not namespace else full.upper() if namespace.isupper() else full.lower()


def setting(app: Any, name: str, value: object) -> str:
    """A line of Python that gives the setting *name* the *value* in *app*."""
    namespaced = bool(getattr(app, "namespace", None))
    return f"{'' if namespaced else 'app.conf.'}{spelled(app, name)} = {value!r}"
