"""Spans: one trace from a request over the bus and the log to the attempt; nothing while tracing is off."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from structlog.testing import capture_logs

from contracts.commands.base import CommandMetadata
from contracts.commands.datasets import CreateDataset, DatasetResult
from contracts.errors import NotFound, SetupError, Unavailable
from contracts.queries.log import GetLog, LogView
from contracts.wire.log.event_log import EventLog
from contracts.wire.service import tracing
from contracts.wire.service.boot import configure_tracing
from contracts.wire.service.otel import OtelSpans
from contracts.wire.service.requests import Service, ServiceClient
from contracts.wire.workers.worker import Attempt
from tests.conftest import BusOf, command_metadata
from tests.contracts.test_worker import create_and_queue_job, finish, run_worker, wait_until_ended

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@contextmanager
def recorded_spans() -> Iterator[InMemorySpanExporter]:
    """Tracing is on meanwhile."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(OtelSpans(provider))
    try:
        yield exporter
    finally:
        tracing.use(None)


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    with recorded_spans() as exporter:
        yield exporter


def parent_id(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


async def test_a_trace_goes_from_the_request_through_command_and_append_to_the_attempt(
    bus_of: BusOf, exporter: InMemorySpanExporter
) -> None:
    catalog = await bus_of("catalog")

    async def create(metadata: CommandMetadata, _: CreateDataset) -> DatasetResult:
        await create_and_queue_job(catalog, metadata=metadata)
        return DatasetResult(id="x", name="x")

    async def run(attempt: Attempt) -> None:
        await attempt.report(finish(attempt))

    service = Service(catalog, "catalog", "0.1.0")
    await service.start(commands={CreateDataset: create})
    with tracing.span("HTTP POST", "server"):
        requested = tracing.traceparent()
        metadata = msgspec.structs.replace(command_metadata(), traceparent=requested)
        await ServiceClient(await bus_of("gateway")).command(metadata, CreateDataset(name="cats"))
    async with run_worker(await bus_of("trainer"), run):
        await wait_until_ended(catalog)
    await service.close()

    spans = exporter.get_finished_spans()
    by_name = {span.name: span for span in reversed(spans)}
    client, server, attempt = by_name["cmd.catalog.dataset"], by_name["cmd-dataset"], by_name["attempt job"]
    ids = {name: span.context.span_id for name, span in by_name.items()}
    assert (parent_id(client), client.kind) == (ids["HTTP POST"], SpanKind.CLIENT)
    assert (parent_id(server), server.kind) == (ids["cmd.catalog.dataset"], SpanKind.SERVER)
    assert (parent_id(attempt), attempt.kind) == (ids["HTTP POST"], SpanKind.CONSUMER)
    appends = [span for span in spans if span.name == "append"]
    assert {parent_id(span) for span in appends} >= {ids["cmd-dataset"], ids["attempt job"]}
    of_request = by_name["HTTP POST"].context.trace_id
    traced = [span for span in spans if span.context.trace_id == of_request]
    assert {"HTTP POST", "cmd.catalog.dataset", "cmd-dataset", "append", "attempt job"} <= {
        span.name for span in traced
    }

    commits = (await EventLog(catalog).load("job", "job_1")).commits
    assert commits[0].commit.traceparent == requested
    trace_ids = {(recorded.commit.traceparent or "").split("-")[1] for recorded in (commits[0], *commits[2:])}
    assert trace_ids == {(requested or "").split("-")[1]}


async def test_a_failed_request_is_marked_by_its_code_and_keeps_its_text_private(
    bus_of: BusOf, exporter: InMemorySpanExporter
) -> None:
    async def handle(_: GetLog) -> LogView:
        raise NotFound("there is no image secret.png")

    service = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await service.start(queries={GetLog: handle})
    with pytest.raises(NotFound):
        await ServiceClient(await bus_of("gateway")).query(GetLog())
    await service.close()
    spans = exporter.get_finished_spans()
    assert {span.status.description for span in spans} == {"not-found"}
    assert "secret" not in "".join(span.to_json() for span in spans)


@pytest.mark.parametrize(("error", "code"), [(Unavailable("x"), "unavailable"), (ValueError("a secret"), "ValueError")])
def test_an_exception_marks_its_span(exporter: InMemorySpanExporter, error: Exception, code: str) -> None:
    with pytest.raises(type(error)), tracing.span("work", "client"):
        raise error
    (span,) = exporter.get_finished_spans()
    assert (span.status.is_ok, span.status.description) == (False, code)
    assert span.events == ()


def test_a_damaged_parent_begins_a_new_trace(exporter: InMemorySpanExporter) -> None:
    with tracing.span("work", "server", "not a traceparent"):
        assert (tracing.traceparent() or "").startswith("00-")
    (span,) = exporter.get_finished_spans()
    assert span.parent is None


def test_while_tracing_is_off_there_is_no_span_and_no_traceparent() -> None:
    with tracing.span("work", "server") as first, tracing.span("work", "client") as second:
        first.note({"http.route": "x"})
        first.fail("code")
        assert first is second
        assert tracing.traceparent() is None


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "loratory"},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "true"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_tracing_stays_off_without_an_exporter_or_when_disabled(environ: dict[str, str]) -> None:
    configure_tracing("catalog", environ)
    assert tracing.traceparent() is None
    with tracing.span("work", "server"):
        assert tracing.traceparent() is None


def test_an_exporter_that_the_extra_lacks_is_refused() -> None:
    with pytest.raises(SetupError, match="OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf"):
        configure_tracing("catalog", {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


def test_without_the_extra_the_service_starts_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "contracts.wire.service.otel", None)
    with capture_logs() as lines:
        configure_tracing("catalog", ENDPOINT)
    assert [(line["event"], line["cure"]) for line in lines] == [
        ("tracing_not_installed", "pip install 'loratory[otel]'")
    ]
