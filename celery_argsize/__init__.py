"""How big the arguments of Celery tasks are, and whether Celery cuts their repr.

Most users need only ``install(app)``. A name is imported when it is first used,
as ``celery`` imports this package at every start.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    __version__: str

    from .advice.advice import (
        Advice as Advice,
        Cost as Cost,
        PartAdvice as PartAdvice,
        Recommendation as Recommendation,
        ReprLimits as ReprLimits,
        TaskAdvice as TaskAdvice,
    )
    from .advice.adviser import advise as advise
    from .advice.in_force import Finding as Finding, HostCheck as HostCheck
    from .advice.limits import set_repr_limits as set_repr_limits
    from .api.advice import (
        Configured as Configured,
        auto_configure_celery_limits as auto_configure_celery_limits,
        get_advice as get_advice,
        verify_limits as verify_limits,
    )
    from .api.collector import collector as collector
    from .api.figures import get_size_summary as get_size_summary, update_size_metrics as update_size_metrics
    from .api.parse import CUT as CUT, UNREADABLE as UNREADABLE, ParsedRepr as ParsedRepr, parse_repr as parse_repr
    from .api.reset import ResetResult as ResetResult, reset_metrics as reset_metrics
    from .connections.budget import (
        ConnectionBudget as ConnectionBudget,
        connection_budget as connection_budget,
        connection_settings as connection_settings,
    )
    from .doctor.checks import Diagnosis as Diagnosis
    from .doctor.examine import diagnose as diagnose
    from .errors import (
        ArgsizeError as ArgsizeError,
        ConfigError as ConfigError,
        SchemaError as SchemaError,
        StoreError as StoreError,
    )
    from .figures.summary import PartSummary as PartSummary, Summary as Summary, TaskSummary as TaskSummary
    from .measuring.json_size import UNMEASURABLE as UNMEASURABLE, Size as Size, measure_json_size as measure_json_size
    from .measuring.measurement import Measurement as Measurement, Part as Part
    from .prometheus.server import MetricsServer as MetricsServer
    from .views.page import report_html as report_html
    from .worker.install import install as install, uninstall as uninstall
    from .worker.monitor import Monitor as Monitor
    from .worker.recorder import measure_celery_task_size as measure_celery_task_size

_HOMES: Final = {
    "advice.advice": "Advice Cost PartAdvice Recommendation ReprLimits TaskAdvice",
    "advice.adviser": "advise",
    "advice.in_force": "Finding HostCheck",
    "advice.limits": "set_repr_limits",
    "api.advice": "Configured auto_configure_celery_limits get_advice verify_limits",
    "api.collector": "collector",
    "api.figures": "get_size_summary update_size_metrics",
    "api.parse": "CUT ParsedRepr UNREADABLE parse_repr",
    "api.reset": "ResetResult reset_metrics",
    "connections.budget": "ConnectionBudget connection_budget connection_settings",
    "doctor.checks": "Diagnosis",
    "doctor.examine": "diagnose",
    "errors": "ArgsizeError ConfigError SchemaError StoreError",
    "figures.summary": "PartSummary Summary TaskSummary",
    "measuring.json_size": "Size UNMEASURABLE measure_json_size",
    "measuring.measurement": "Measurement Part",
    "prometheus.server": "MetricsServer",
    "views.page": "report_html",
    "worker.install": "install uninstall",
    "worker.monitor": "Monitor",
    "worker.recorder": "measure_celery_task_size",
}
_MODULES: Final = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_MODULES)  # noqa: PLE0605 - from the table


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


if not TYPE_CHECKING:  # a type checker reads the imports at the top instead

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415 - rarely used

            return version("celery-argsize")
        if name not in _MODULES:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value
