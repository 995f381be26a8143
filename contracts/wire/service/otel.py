"""Spans by the OpenTelemetry SDK, the extra `otel`; imported only where tracing is turned on."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from contracts.errors import LoratoryError, SetupError
from contracts.wire.service.tracing import TRACE_HEADER, Attributes, Span, SpanKind

PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
KINDS: dict[SpanKind, trace.SpanKind] = {
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "producer": trace.SpanKind.PRODUCER,
    "consumer": trace.SpanKind.CONSUMER,
}
_propagator = TraceContextTextMapPropagator()


class OtelSpans:
    """Spans of one tracer provider. Exceptions are recorded by code or type, never with their texts."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer("loratory", version("loratory"))

    @contextmanager
    def start(self, name: str, kind: SpanKind, parent: str | None, attributes: Attributes) -> Iterator[Span]:
        context = _propagator.extract({TRACE_HEADER: parent}) if parent else None
        with self._tracer.start_as_current_span(
            name,
            context,
            KINDS[kind],
            attributes=dict(attributes),
            record_exception=False,
            set_status_on_exception=False,
        ) as started:
            span = _OtelSpan(started)
            try:
                yield span
            except asyncio.CancelledError:
                raise
            except LoratoryError as error:
                span.fail(error.code)
                raise
            except Exception as error:
                span.fail(type(error).__name__)
                raise

    def traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        _propagator.inject(carrier)
        return carrier.get(TRACE_HEADER)


class _OtelSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(dict(attributes))

    def fail(self, code: str) -> None:
        self._span.set_status(trace.Status(trace.StatusCode.ERROR, code))


def exporting_spans(service: str, environ: Mapping[str, str]) -> OtelSpans:
    """Spans sent in batches to the collector that the `OTEL_EXPORTER_OTLP_…` variables name; the last at exit."""
    for variable in PROTOCOL_VARIABLES:
        if environ.get(variable) not in (None, "", "http/protobuf"):
            raise SetupError(f"{variable} must be http/protobuf: Loratory's extra `otel` has no other exporter")
    name = {} if environ.get("OTEL_SERVICE_NAME") else {"service.name": f"loratory-{service}"}
    resource = Resource.create({"service.namespace": "loratory", "service.version": version("loratory"), **name})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OtelSpans(provider)
