"""How big the arguments of Celery tasks are, and whether Celery cuts their repr.

``install(app)`` is all that a user needs; the other names are for scripts and handlers of their own. Nothing is
imported until it is used, as ``celery`` imports its plugins' packages at every start.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    __version__: str

    from celery_argsize.advice import (
        Advice as Advice,
        Cost as Cost,
        PartAdvice as PartAdvice,
        ReprLimits as ReprLimits,
        TaskAdvice as TaskAdvice,
    )
    from celery_argsize.adviser import advise as advise
    from celery_argsize.api import get_size_summary as get_size_summary, update_size_metrics as update_size_metrics
    from celery_argsize.configure import (
        Configured as Configured,
        auto_configure_celery_limits as auto_configure_celery_limits,
        get_advice as get_advice,
        verify_limits as verify_limits,
    )
    from celery_argsize.connections import (
        ConnectionBudget as ConnectionBudget,
        connection_budget as connection_budget,
        connection_settings as connection_settings,
    )
    from celery_argsize.doctor.diagnosis import Diagnosis as Diagnosis
    from celery_argsize.doctor.examine import diagnose as diagnose
    from celery_argsize.errors import (
        ArgsizeError as ArgsizeError,
        ConfigError as ConfigError,
        SchemaError as SchemaError,
        StoreError as StoreError,
    )
    from celery_argsize.limits import set_repr_limits as set_repr_limits
    from celery_argsize.measure import (
        UNMEASURABLE as UNMEASURABLE,
        Size as Size,
        measure_json_size as measure_json_size,
    )
    from celery_argsize.measurement import Measurement as Measurement, Part as Part
    from celery_argsize.monitor import Monitor as Monitor, install as install, uninstall as uninstall
    from celery_argsize.parse import (
        CUT as CUT,
        UNREADABLE as UNREADABLE,
        ParsedRepr as ParsedRepr,
        parse_repr as parse_repr,
    )
    from celery_argsize.recorder import measure_celery_task_size as measure_celery_task_size
    from celery_argsize.reset import ResetResult as ResetResult, reset_metrics as reset_metrics
    from celery_argsize.summary import PartSummary as PartSummary, Summary as Summary, TaskSummary as TaskSummary
    from celery_argsize.tiers import Recommendation as Recommendation
    from celery_argsize.verify import Finding as Finding, HostCheck as HostCheck

_HOMES: Final = {
    "advice": ["Advice", "Cost", "PartAdvice", "ReprLimits", "TaskAdvice"],
    "adviser": ["advise"],
    "api": ["get_size_summary", "update_size_metrics"],
    "configure": ["Configured", "auto_configure_celery_limits", "get_advice", "verify_limits"],
    "connections": ["ConnectionBudget", "connection_budget", "connection_settings"],
    "doctor.diagnosis": ["Diagnosis"],
    "doctor.examine": ["diagnose"],
    "errors": ["ArgsizeError", "ConfigError", "SchemaError", "StoreError"],
    "limits": ["set_repr_limits"],
    "measure": ["UNMEASURABLE", "Size", "measure_json_size"],
    "measurement": ["Measurement", "Part"],
    "monitor": ["Monitor", "install", "uninstall"],
    "parse": ["CUT", "UNREADABLE", "ParsedRepr", "parse_repr"],
    "recorder": ["measure_celery_task_size"],
    "reset": ["ResetResult", "reset_metrics"],
    "summary": ["PartSummary", "Summary", "TaskSummary"],
    "tiers": ["Recommendation"],
    "verify": ["Finding", "HostCheck"],
}
_MODULES: Final = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_MODULES)  # noqa: PLE0605 - made from the table above


if not TYPE_CHECKING:  # so that a type checker still knows which names there are

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415 - for the few who ask

            return version("celery-argsize")
        if name not in _MODULES:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
