"""Frames through a pipe: bounded, complete, and of the expected type."""

import io
import subprocess
import sys

import msgspec
import pytest

from contracts.wire.system.pipe import PREFIX_BYTES, Frames, InvalidFrame


class Greeting(msgspec.Struct, frozen=True, tag="greeting"):
    name: str


class Farewell(msgspec.Struct, frozen=True, tag="farewell"):
    name: str


GREETINGS: Frames[Greeting] = Frames(Greeting, 1000)
FAREWELLS: Frames[Farewell] = Frames(Farewell, 1000)


def test_messages_arrive_unchanged_and_a_closed_pipe_gives_none() -> None:
    frames: Frames[Greeting | Farewell] = Frames(Greeting | Farewell, 1000)
    pipe = io.BytesIO()
    frames.write(pipe, Greeting("cat"))
    frames.write(pipe, Farewell("cat"))
    pipe.seek(0)
    assert frames.read(pipe) == Greeting("cat")
    assert frames.read(pipe) == Farewell("cat")
    assert frames.read(pipe) is None


def test_a_frame_is_a_length_and_a_body() -> None:
    frame = GREETINGS.encode(Greeting("cat"))
    assert GREETINGS.body_length(frame[:PREFIX_BYTES]) == len(frame) - PREFIX_BYTES
    assert GREETINGS.decode(frame[PREFIX_BYTES:]) == Greeting("cat")


@pytest.mark.parametrize(
    "received",
    [b"\0", b"\0\0\0\x05ab", b"\xff\xff\xff\xff", b"\0\0\0\x03abc", FAREWELLS.encode(Farewell("cat"))],
    ids=["part of a length", "part of a body", "too long", "no msgpack", "another message"],
)
def test_an_invalid_frame_is_a_protocol_error(received: bytes) -> None:
    with pytest.raises(InvalidFrame):
        GREETINGS.read(io.BytesIO(received))


def test_a_message_of_exactly_the_limit_is_sent_and_a_longer_one_is_not() -> None:
    body = len(msgspec.msgpack.encode(Greeting("x" * 100)))
    frames: Frames[Greeting] = Frames(Greeting, body)
    assert frames.read(io.BytesIO(frames.encode(Greeting("x" * 100)))) == Greeting("x" * 100)
    with pytest.raises(InvalidFrame, match=f"{body + 1} bytes exceeds the limit of {body}"):
        frames.encode(Greeting("x" * 101))


@pytest.mark.parametrize("module", ["contracts.wire.system.pipe", "contracts.wire.system.files"])
def test_children_start_light(module: str) -> None:
    """What a child imports to talk and to write files brings neither the bus nor an event loop."""
    program = f"import sys, {module}; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )
    assert module in loaded
    assert not loaded & {"nats", "obstore", "asyncio", "structlog", "contracts.subjects"}


@pytest.mark.parametrize("child", ["catalog.ingest.decoder", "trainer.engine.__main__"])
def test_a_child_that_starts_imports_no_bus(child: str) -> None:
    program = f"import sys, {child}; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )
    assert child in loaded
    assert not loaded & {"nats", "obstore", "asyncio", "torch", "sqlite3"}
