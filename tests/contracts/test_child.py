"""Child processes: they end with their parent, and nothing keeps their end from being seen."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import uvloop

from contracts.wire.system.child import PipedChild, SessionChild
from contracts.wire.system.pipe import Frames, InvalidFrame, PipeClosed
from tests.limits import WAIT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and sessions of POSIX")


class Word(msgspec.Struct, frozen=True):
    text: str


WORDS: Frames[Word] = Frames(Word, 1 << 20)
PREAMBLE = f"""
import os, signal, sys, time
sys.path.insert(0, {str(Path.cwd())!r})
import msgspec
from contracts.wire.system.pipe import Frames
class Word(msgspec.Struct):
    text: str
WORDS = Frames(Word, 1 << 20)
def say(text):
    WORDS.write(sys.stdout.buffer, Word(text))
"""
ECHO = "while word := WORDS.read(sys.stdin.buffer): say(word.text.upper())"
SLEEP = "import time; time.sleep(600)"
PARENT = f"""
import asyncio, sys
sys.path.insert(0, {str(Path.cwd())!r})
from contracts.wire.system.child import {{child}}
async def main():
    child = await {{child}}.start([sys.executable, "-c", {{program!r}}])
    print(child.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def piped(code: str) -> PipedChild:
    return await PipedChild.start([sys.executable, "-c", PREAMBLE + code])


def test_sending_to_a_child_that_has_just_died_is_reported_as_its_end_by_every_event_loop() -> None:
    """uvloop, under which the services run, raises another error than asyncio."""

    async def send_to_dead() -> None:
        child = await piped("")
        await child.wait()
        async with asyncio.timeout(WAIT):
            while True:  # until the loop has seen that the pipe is closed
                await child.send(WORDS.encode(Word("hello")))
                await asyncio.sleep(0)

    for loop_factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=loop_factory) as runner, pytest.raises(PipeClosed):
            runner.run(send_to_dead())


async def session(code: str) -> SessionChild:
    return await SessionChild.start([sys.executable, "-c", code])


async def wait_ended(pid: int) -> None:
    """Waits until a process ends that is no child of ours."""
    with suppress(ProcessLookupError, FileNotFoundError):
        async with asyncio.timeout(WAIT):
            while _state(pid) != "Z":
                os.kill(pid, 0)
                await asyncio.sleep(0.01)


def _state(pid: int) -> str:
    if sys.platform != "linux":
        return ""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_messages_go_both_ways_until_the_pipe_closes() -> None:
    child = await piped(ECHO)
    for text in ("one", "two", "x" * 500_000):
        await child.send(WORDS.encode(Word(text)))
        assert await child.receive(WORDS) == Word(text.upper())
    running_before = child.is_running
    assert await child.stop(WAIT) == 0
    assert (running_before, child.is_running) == (True, False)
    assert await child.stop(WAIT) == await child.kill() == 0
    with pytest.raises(PipeClosed):
        await child.receive(WORDS)
    with pytest.raises(PipeClosed):
        for _ in range(100):  # the system notices a closed pipe at a later write
            await child.send(WORDS.encode(Word("x" * 100_000)))


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_sending_to_a_child_that_was_killed_is_the_same_error_on_every_event_loop(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def send_to_a_dead_child() -> None:
        child = await piped(ECHO)
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()
        with pytest.raises(PipeClosed):
            for _ in range(100):  # the system notices a closed pipe at a later write
                await child.send(WORDS.encode(Word("x" * 100_000)))

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(send_to_a_dead_child())


async def test_a_cancelled_receive_continues_in_the_same_frame() -> None:
    halves = """
frame = WORDS.encode(Word("whole"))
sys.stdout.buffer.write(frame[:4]); sys.stdout.buffer.flush()
sys.stdin.buffer.readline()
sys.stdout.buffer.write(frame[4:]); sys.stdout.buffer.flush()
"""
    child = await piped(halves)
    receiving = asyncio.create_task(child.receive(WORDS))
    async with asyncio.timeout(WAIT):
        while child._body_length is None:  # noqa: ASYNC110 - only the child knows that half a frame was read
            await asyncio.sleep(0.01)
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    await child.send(b"\n")
    assert await child.receive(WORDS) == Word("whole")
    assert await child.stop(WAIT) == 0


async def test_a_child_that_breaks_the_protocol_is_another_error_than_one_that_ended() -> None:
    child = await piped("sys.stdout.buffer.write(b'\\0\\0\\0\\3abc')")
    with pytest.raises(InvalidFrame):
        await child.receive(WORDS)
    assert await child.wait() == 0
    child = await piped("sys.stdout.buffer.write(b'\\0\\0'); sys.stdout.flush(); sys.exit(7)")
    with pytest.raises(PipeClosed):
        await child.receive(WORDS)
    assert await child.wait() == 7


async def test_a_child_that_does_not_end_when_asked_is_killed() -> None:
    child = await piped("say('ready'); time.sleep(600)")
    assert await child.receive(WORDS) == Word("ready")
    assert await child.stop(0.01) == -signal.SIGKILL


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_the_end_of_a_child_that_filled_its_pipe_is_seen(end: str) -> None:
    child = await piped("say('ready')\nwhile True: say('x' * 100_000)")
    assert await child.receive(WORDS) == Word("ready")
    async with asyncio.timeout(WAIT):
        assert await (child.stop(0.1) if end == "stop" else child.kill()) == -signal.SIGKILL


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_kill_takes_all_that_a_child_started_with_it(stopped: bool) -> None:
    """Also from a child that is stopped, and with the pipe still open in the grandchild."""
    child = await piped("import subprocess; subprocess.Popen(['sleep', '600']); say('started'); time.sleep(600)")
    assert await child.receive(WORDS) == Word("started")
    if stopped:
        os.kill(child.pid, signal.SIGSTOP)
    async with asyncio.timeout(WAIT):
        assert await child.kill() == -signal.SIGKILL


async def test_a_session_ends_on_request_and_takes_what_it_started_with_it() -> None:
    out, back = os.pipe()
    program = (
        "import subprocess, sys, time; subprocess.Popen(['sleep', '600']); print('started', flush=True); time.sleep(9)"
    )
    child = await SessionChild.start([sys.executable, "-c", program], output=back)
    os.close(back)
    with os.fdopen(out, "rb") as output:
        assert await asyncio.to_thread(output.readline) == b"started\n"
        assert await child.stop(WAIT) == -signal.SIGTERM
        # The other end of the pipe closes only when the grandchild has ended too.
        assert await asyncio.wait_for(asyncio.to_thread(output.read), WAIT) == b""
    assert await child.stop(WAIT) == await child.kill() == -signal.SIGTERM


async def test_a_session_that_ignores_the_request_is_killed() -> None:
    out, back = os.pipe()
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    child = await SessionChild.start([sys.executable, "-c", program], output=back)
    os.close(back)
    with os.fdopen(out, "rb") as output:
        await asyncio.to_thread(output.readline)
    assert await child.stop(0.01) == -signal.SIGKILL


async def test_a_session_gets_the_environment_and_the_descriptors_it_was_given(tmp_path: Path) -> None:
    with (tmp_path / "inherited").open("wb") as inherited:
        descriptor = inherited.fileno()
        child = await SessionChild.start(
            [sys.executable, "-c", f"import os; os.write({descriptor}, os.environ['WORD'].encode())"],
            environment={"WORD": "hello"},
            inherited=[descriptor],
        )
        assert await child.wait() == 0
    assert (tmp_path / "inherited").read_bytes() == b"hello"


async def test_a_program_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await SessionChild.start([tmp_path / "missing"])
    with pytest.raises(FileNotFoundError):
        await PipedChild.start([str(tmp_path / "missing")])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a session with its parent")
@pytest.mark.parametrize(
    ("child", "program"),
    [("SessionChild", SLEEP), ("PipedChild", "import sys; sys.stdin.read()"), ("PipedChild", SLEEP)],
)
async def test_a_child_ends_when_its_parent_is_killed(child: str, program: str) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT.format(child=child, program=program)), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    os.kill(pid, 0)
    parent.kill()
    await parent.communicate()
    await wait_ended(pid)
