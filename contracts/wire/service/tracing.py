"""Spans of requests, commands, queries, appends and attempts, for OpenTelemetry.

Off, and almost free, unless the extra `otel` is installed and the usual `OTEL_…` variables name an exporter
(`contracts.wire.service.otel`). A trace continues over the bus in the header `traceparent` (W3C Trace Context), and in
the field `traceparent` of commits: a job's attempt belongs to the trace of the request that created the job.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

SpanKind = Literal["server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int]
"""Named as in OpenTelemetry's semantic conventions where these have a name, else `loratory.…`."""
TRACE_HEADER = "traceparent"
NO_ATTRIBUTES: Attributes = {}


class Span(Protocol):
    """A running span. An exception that leaves its block marks it as failed."""

    def note(self, attributes: Attributes) -> None:
        """Adds attributes that are known only later."""

    def fail(self, code: str) -> None:
        """Marks the span as failed."""


class Spans(Protocol):
    """Starts spans and names the current one."""

    def start(
        self, name: str, kind: SpanKind, parent: str | None, attributes: Attributes
    ) -> AbstractContextManager[Span]: ...

    def traceparent(self) -> str | None: ...


class _NoSpan:
    """What is recorded while tracing is off: nothing."""

    def note(self, attributes: Attributes) -> None: ...

    def fail(self, code: str) -> None: ...


_NO_SPAN: AbstractContextManager[Span] = nullcontext(_NoSpan())
_spans: Spans | None = None


def use(spans: Spans | None) -> None:
    """Turns tracing on for this process, or off (None)."""
    global _spans  # noqa: PLW0603 - like the configuration of the logs: one for each process
    _spans = spans


def span(
    name: str, kind: SpanKind, parent: str | None = None, attributes: Attributes = NO_ATTRIBUTES
) -> AbstractContextManager[Span]:
    """A span around the block; `parent` is a traceparent, by default the current span is the parent."""
    return _NO_SPAN if _spans is None else _spans.start(name, kind, parent, attributes)


def traceparent() -> str | None:
    """The current span as a W3C traceparent; None: there is none."""
    return None if _spans is None else _spans.traceparent()
