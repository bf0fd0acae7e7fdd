"""OpenTelemetry's tracing of Celery, as its documentation has it, with spans that go nowhere.

For ``task_time`` and ``worker``. Importing this imports OpenTelemetry.
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


class Nowhere(SpanExporter):  # type: ignore[misc]  # where it is not installed, its types are not known
    """Takes spans, and is done."""

    def export(self, spans: Sequence[Any]) -> SpanExportResult:  # noqa: ARG002 - as the interface has it
        """Success."""
        return SpanExportResult.SUCCESS


def instrument(**_: Any) -> None:
    """Trace Celery in this process. Also a receiver of ``worker_process_init``."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    trace.set_tracer_provider(provider)
    instrumentor: Any = CeleryInstrumentor
    instrumentor().instrument()
