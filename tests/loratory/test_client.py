"""The client against a real gateway, and against one that stumbles."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from contracts.errors import LoratoryError, NotFound, Rejected, SetupError, Unavailable
from contracts.events import Artifact
from contracts.ids import Digest
from loratory import AsyncClient, Client
from loratory.client import TookTooLong
from loratory.download import DamagedDownload
from loratory.pictures import found_in
from tests.limits import WAIT

NAMES = (f"set {number}" for number in itertools.count())


def test_pictures_come_in_with_their_captions_and_each_outcome_is_told(workshop: str, pictures: Path) -> None:
    with Client(workshop) as client:
        name = next(NAMES)
        client.create_dataset(name)
        imported = client.import_folder(name, pictures)
        assert sorted(file.name for file in imported.of("added")) == ["0.png", "1.png", "2.png"]
        assert [file.name for file in imported.of("existing")] == ["again.png"]
        assert [file.name for file in imported.of("refused")] == ["text.png"]
        assert (imported.captions, imported.others) == (1, 1)
        captions = {image.name: image.caption for image in client.images(name) if image.caption_source != "tags"}
        assert captions.get("1.png") == "a green square"
        view = client.dataset(name)
        assert (view.images, view.captioned, view.refused) == (3, 1, 1)
        again = client.import_folder(name, pictures)
        assert (len(again.of("added")), len(again.of("existing"))) == (0, 4)


def test_a_file_that_vanished_stops_no_other(workshop: str, pictures: Path) -> None:
    found = found_in(pictures)
    (pictures / "0.png").unlink()
    with Client(workshop) as client:
        client.create_dataset(name := next(NAMES))
        imported = client.import_found(name, found)
    assert imported.unread == (("0.png", "No such file or directory"),)
    assert len(imported.of("added")) == 3


def test_problems_are_errors_of_their_kind(workshop: str) -> None:
    with Client(workshop) as client:
        name = next(NAMES)
        with pytest.raises(NotFound):
            client.dataset("of nobody")
        client.create_dataset(name, key="once")
        with pytest.raises(Rejected, match="already"):
            client.create_dataset(name)
        client.create_dataset(name, key="once")


def test_a_job_that_nobody_takes_says_why_it_waits_and_can_be_cancelled(workshop: str, pictures: Path) -> None:
    with Client(workshop) as client:
        name = next(NAMES)
        client.create_dataset(name)
        client.import_folder(name, pictures)
        job = client.train(name, preset="stand-in-demo", changes={"length": {"type": "steps", "count": 3}})
        assert job.live is not None and job.live.waiting is not None
        assert job.live.waiting.code == "no-worker"
        with pytest.raises(TookTooLong):
            client.wait_job(job.id, timeout=0.2)
        client.cancel_job(job.id)
        assert client.wait_job(job.id, timeout=20).status == "cancelled"
        types = [frame.type for frame in client.watch_job(job.id) if frame.seq]
        assert (types[0], types[-1]) == ("job.created", "job.cancelled")
        assert [one.id for one in client.jobs(dataset=name)] == [job.id]


def test_the_story_of_a_set_is_read_in_order_and_from_any_place(workshop: str) -> None:
    with Client(workshop) as client:
        receipt = client.create_dataset(next(NAMES))
        story = list(client.events())
        places = [(event.sequence, event.index) for event in story]
        assert places == sorted(set(places))
        (born,) = [event for event in story if event.thing == receipt.id]
        assert (born.type, born.actor) == ("dataset.created", "user:local")
        rest = list(client.events(after=story[0].cursor))
        assert [event.cursor for event in rest] == [event.cursor for event in story[1:]]
        assert [event.thing for event in client.events(thing=receipt.id)] == [receipt.id]


def test_a_watcher_that_comes_again_with_its_cursor_misses_and_repeats_nothing(workshop: str) -> None:
    async def facts(client: AsyncClient, after: str, count: int) -> list[str]:
        found: list[str] = []
        async with asyncio.timeout(WAIT):
            async with aclosing(client.watch(after=after)) as frames:
                async for frame in frames:
                    if frame.seq is not None:
                        found.append(frame.seq)
                    if len(found) == count:
                        break
        return found

    async def walk() -> None:
        async with AsyncClient(workshop) as client:
            await client.create_dataset(next(NAMES))
            await client.create_dataset(next(NAMES))
            story = [event.cursor async for event in client.events()]
            first = await facts(client, "", 1)
            rest = await facts(client, first[-1], len(story) - 1)
            assert first + rest == story

    asyncio.run(walk())


def test_what_is_no_address_is_said(workshop: str) -> None:
    with pytest.raises(SetupError, match="no address of a server"):
        Client("127.0.0.1:8000").close()
    with (
        Client("http://127.0.0.1:9", patience=0.1) as client,
        pytest.raises(Unavailable, match="is `loratory up` running"),
    ):
        client.datasets()


# --- a server that stumbles: faults a real one cannot be asked for

CONTENT = bytes(range(256)) * 4096
ARTIFACT = Artifact(
    name="lora.safetensors",
    format="kohya",
    digest=Digest(hashlib.sha256(CONTENT).hexdigest()),
    size=len(CONTENT),
    tensors=Digest("0" * 64),
)


class Stumbling:
    """Answers each request with the next of its answers, then hangs up. Remembers what it was asked."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = iter(answers)
        self.asked: list[str] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(next(self._answers, b""))
        await writer.drain()
        writer.close()


@asynccontextmanager
async def stumbling(*answers: bytes) -> AsyncIterator[tuple[AsyncClient, Stumbling]]:
    server = Stumbling(*answers)
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        async with AsyncClient(f"http://127.0.0.1:{port}", patience=5) as client:
            yield client, server
    finally:
        listening.close()
        await listening.wait_closed()


def said(status: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def test_a_write_is_sent_again_with_the_same_key() -> None:
    problem = b'{"code": "unavailable", "title": "x", "detail": "the catalog is away", "status": 503}'
    busy = said("503 Service Unavailable", problem, "Retry-After: 0")
    async with stumbling(b"", busy, said("201 Created", b'{"id": "ds_1"}', "Loratory-Seq: 7")) as (client, server):
        receipt = await client.create_dataset("cats")
    keys = {
        line for asked in server.asked for line in asked.split("\r\n") if line.lower().startswith("idempotency-key")
    }
    assert receipt.id == "ds_1"
    assert (len(server.asked), len(keys)) == (3, 1)


async def test_what_is_read_after_a_write_stands_at_least_there() -> None:
    empty = b'{"items": [], "total": 0, "next": null}'
    async with stumbling(said("201 Created", b'{"id": "d"}', "Loratory-Seq: 7"), said("200 OK", empty)) as (
        client,
        server,
    ):
        await client.create_dataset("cats")
        await client.datasets()
    assert "min_seq=7" in server.asked[1]


async def test_an_answer_that_is_no_problem_document_is_still_an_error_of_ours() -> None:
    async with stumbling(said("404 Not Found", b"<html>")) as (client, _):
        with pytest.raises(LoratoryError, match="answers 404; is there a Loratory"):
            await client.version()


async def test_a_download_that_is_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    cut = said("200 OK", CONTENT[:500_000], length=len(CONTENT))
    rest = said("206 Partial Content", CONTENT[500_000:])
    async with stumbling(cut, rest) as (client, server):
        path = await client.download("job_1", ARTIFACT, tmp_path)
    assert path.read_bytes() == CONTENT
    assert "range: bytes=500000-" in server.asked[1].lower()
    assert [file.name for file in tmp_path.iterdir()] == ["lora.safetensors"]


async def test_a_download_that_is_damaged_is_not_kept(tmp_path: Path) -> None:
    async with stumbling(said("200 OK", bytes(len(CONTENT)))) as (client, _):
        with pytest.raises(DamagedDownload, match="has the sha256"):
            await client.download("job_1", ARTIFACT, tmp_path)
    assert list(tmp_path.iterdir()) == []
