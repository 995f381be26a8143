"""Requests that are still open when the time to shut down is over, on a real server."""

import asyncio
from typing import Any

import httpx
import pytest
import uvicorn

from gateway.app import bind
from gateway.http.shutdown import with_shutdown_answer


@pytest.mark.parametrize("started", [False, True], ids=["no answer yet", "answer begun"])
async def test_a_request_that_is_cancelled_says_that_it_may_have_been_carried_out(started: bool) -> None:
    open_requests = asyncio.Event()

    async def hanging(scope: Any, receive: Any, send: Any) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        open_requests.set()
        await asyncio.Event().wait()

    listening = bind("127.0.0.1", 0)
    config = uvicorn.Config(with_shutdown_answer(hanging), lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve([listening]))  # `serve` takes over the signals
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
        asked = asyncio.create_task(client.put("/images/img_1/caption"))
        await open_requests.wait()
        server.should_exit = True
        if started:
            with pytest.raises(httpx.RemoteProtocolError):
                await asked
        else:
            answer = await asked
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert answer.headers["Retry-After"] == "1"
            assert "may have been made or not" in answer.json()["detail"]
    await serving
