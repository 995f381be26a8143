"""The id of a request: in every response, in problems, in the log, in commands and queries over the bus."""

from pathlib import Path

import pytest
from nats.aio.msg import Msg
from structlog.testing import capture_logs
from websockets.asyncio.client import connect

from contracts.commands.jobs import CreateJob
from contracts.wire.service.request_ids import BUS_HEADER
from gateway.http.request_ids import HEADER
from tests.contracts.test_tracing import recorded_spans
from tests.gateway.conftest import World, world_at
from tests.gateway.test_http import P, assert_problem

GIVEN = "from-a-client/7"
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", f"{P}/version", f"{P}/nothing", f"{P}/jobs/none"])
async def test_every_response_has_the_id_that_was_sent(world: World, path: str) -> None:
    response = await world.client.get(path, headers={HEADER: GIVEN})
    assert response.headers.get_list(HEADER) == [GIVEN]


@pytest.mark.parametrize("given", [None, "two words", "x" * 129, "<script>"])
async def test_a_new_id_is_made_if_none_or_no_token_was_sent(world: World, given: str | None) -> None:
    headers = {} if given is None else {HEADER: given}
    made = [(await world.client.get(f"{P}/nothing", headers=headers)).headers[HEADER] for _ in range(2)]
    assert made[0] != made[1]
    assert given not in made


async def test_problems_have_the_id_also_those_before_any_route(world: World, tmp_path: Path) -> None:
    for request in (
        world.client.get(f"{P}/jobs/none", headers={HEADER: GIVEN}),
        world.client.post(f"{P}/jobs", content=b"{", headers={HEADER: GIVEN, "Content-Type": "application/json"}),
        world.client.get(f"{P}/version", headers={HEADER: GIVEN, "Host": "elsewhere.example"}),
    ):
        assert (await request).json()["request_id"] == GIVEN
    async with world_at(tmp_path, key="a-key-of-sixteen-characters") as guarded:
        refused = await guarded.client.get(f"{P}/jobs", headers={HEADER: GIVEN, "Authorization": "Bearer wrong"})
        assert assert_problem(refused, 401, "unauthorized")["request_id"] == GIVEN
        assert refused.headers[HEADER] == GIVEN


async def test_commands_and_queries_carry_the_id(world: World) -> None:
    received: list[Msg] = []

    async def on_message(message: Msg) -> None:
        received.append(message)

    for subject in ("cmd.catalog.*", "qry.catalog.*"):
        await world.catalog.bus.subscribe(subject, cb=on_message)
    await world.catalog.bus.flush()
    await world.client.post(f"{P}/jobs", json={"dataset": "dog"}, headers={HEADER: GIVEN})
    (command,) = [found for found in world.catalog.received_commands if isinstance(found.command, CreateJob)]
    assert command.metadata.correlation_id == GIVEN
    await world.catalog.bus.flush()
    assert {message.subject.partition(".")[0] for message in received} >= {"cmd"}
    assert {(message.headers or {}).get(BUS_HEADER) for message in received} == {GIVEN}


async def test_a_write_is_noted_in_the_log_by_its_route_and_not_by_its_path(world: World) -> None:
    with capture_logs() as lines:
        await world.client.post(f"{P}/jobs/job_private/start")
        await world.client.post("/a/path/that/somebody/typed")
    answered = [line for line in lines if line["event"] == "http_request_answered"]
    assert [(line["route"], line["method"]) for line in answered] == [
        (f"{P}/jobs/{{job}}/start", "POST"),
        ("none", "POST"),
    ]
    assert "private" not in str(answered)


async def test_a_websocket_is_accepted_and_closed_with_the_id(world: World) -> None:
    async with connect(f"{world.ws}/ws/progress", additional_headers={HEADER: GIVEN}) as socket:
        assert socket.response is not None
        assert socket.response.headers[HEADER] == GIVEN
    async with connect(f"{world.ws}/ws/progress/none", additional_headers={HEADER: GIVEN}) as refused:
        await refused.wait_closed()
    assert (refused.close_reason or "").endswith(f" (request {GIVEN})")


async def test_a_request_continues_the_trace_of_its_client_and_so_does_its_command(world: World) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with recorded_spans() as exporter:
        sent = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        await world.client.post(f"{P}/jobs", json={"dataset": "dog"}, headers=sent)
        await world.client.get("/health", headers=sent)
    (http,) = [span for span in exporter.get_finished_spans() if span.name == "HTTP POST"]
    assert http.parent is not None and http.parent.span_id == 0x00F067AA0BA902B7
    assert dict(http.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": f"{P}/jobs",
        "http.response.status_code": 201,
    }
    command = world.catalog.received_commands[-1]
    assert command.metadata.traceparent == f"00-{trace}-{http.context.span_id:016x}-01"
    assert {f"{span.context.trace_id:032x}" for span in exporter.get_finished_spans()} == {trace}
