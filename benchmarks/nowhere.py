"""Sets up OpenTelemetry's tracing of Celery as its documentation says, with an exporter that drops all spans.

``task_time`` and ``worker`` compare with it. Importing this module imports OpenTelemetry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["instrument"]


class Nowhere(SpanExporter):  # type: ignore[misc]  # without OpenTelemetry installed, mypy does not know the base class
    """A span exporter that drops all spans."""

    def export(self, spans: Sequence[Any]) -> SpanExportResult:  # noqa: ARG002 - the interface has this parameter
        """Report success."""
        return SpanExportResult.SUCCESS


def instrument(**_: Any) -> None:
    """Trace Celery in this process. This can be connected to the signal ``worker_process_init``."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    trace.set_tracer_provider(provider)
    instrumentor: Any = CeleryInstrumentor
    instrumentor().instrument()
