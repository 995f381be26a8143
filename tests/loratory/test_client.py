"""The client against a real gateway, and against a faulty one."""

import asyncio
import hashlib
import itertools
import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from zipfile import ZipFile

import pytest
from PIL import Image

from contracts.errors import LoratoryError, NotFound, Rejected, SetupError, Unavailable
from contracts.events.jobs import Artifact
from contracts.ids import Digest
from contracts.wire.system.regular_files import SteadyReader, open_regular
from loratory import AsyncClient, Client
from loratory.api.base import WaitTimeout
from loratory.download import DamagedDownload
from loratory.folders import disk
from loratory.image_files import scan_folder
from tests.limits import WAIT

NAMES = (f"set {number}" for number in itertools.count())


def test_images_are_imported_with_captions_and_each_outcome_is_reported(server_url: str, image_folder: Path) -> None:
    with Client(server_url) as client:
        name = next(NAMES)
        client.create_dataset(name)
        imported = client.import_folder(name, image_folder)
        assert sorted(file.name for file in imported.of("added")) == ["0.png", "1.png", "2.png"]
        assert [file.name for file in imported.of("existing")] == ["again.png"]
        assert [file.name for file in imported.of("refused")] == ["text.png"]
        assert [file.text for file in imported.files if file.text] == ["caption"]
        assert (imported.other_files, imported.unmatched) == (1, ())
        captions = {image.name: image.caption for image in client.images(name) if image.caption_source != "tags"}
        assert captions.get("1.png") == "a green square"
        view = client.dataset(name)
        assert (view.images, view.captioned, view.refused) == (3, 1, 1)
        again = client.import_folder(name, image_folder)
        assert (len(again.of("added")), len(again.of("existing"))) == (0, 4)


def test_thresholds_are_set(server_url: str) -> None:
    with Client(server_url) as client:
        client.create_dataset("thresholds")
        client.set_thresholds("thresholds", general=0.25, character=0.75)
        view = client.dataset("thresholds")
    assert view.thresholds == {"general": 0.25, "character": 0.75}


def test_a_file_that_disappears_does_not_stop_the_import(server_url: str, image_folder: Path) -> None:
    found = scan_folder(image_folder)
    (image_folder / "0.png").unlink()
    with Client(server_url) as client:
        client.create_dataset(name := next(NAMES))
        imported = client.import_scanned(name, found)
    assert imported.unreadable == (("0.png", "No such file or directory"),)
    assert len(imported.of("added")) == 3


def test_files_that_change_do_not_stop_the_import(
    server_url: str, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_then_truncate(path: Path) -> SteadyReader:
        reader = open_regular(path)
        if path.name == "1.png":
            os.truncate(path, 20)
        return reader

    found = scan_folder(image_folder)
    with (image_folder / "0.png").open("ab") as growing:
        growing.write(b"more")
    monkeypatch.setattr(disk, "open_regular", open_then_truncate)
    with Client(server_url) as client:
        client.create_dataset(name := next(NAMES))
        imported = client.import_scanned(name, found)
    assert dict(imported.unreadable) == dict.fromkeys(("0.png", "1.png"), "it changed while it was read")
    assert "2.png" in {file.name for file in imported.of("added")}


def test_a_damaged_member_or_mask_of_a_zip_file_does_not_stop_the_import(
    server_url: str, image_folder: Path, tmp_path: Path
) -> None:
    Image.new("L", (64, 64)).save(mask := tmp_path / "mask.png")
    with ZipFile(tmp_path / "x.zip", "w") as archive:
        for number in range(3):
            archive.write(image_folder / f"{number}.png", f"4_cat/{number}.png")
        for number in (1, 2):
            archive.write(mask, f"4_cat/{number}-masklabel.png")
        damaged = [archive.getinfo(f"4_cat/{name}") for name in ("0.png", "2-masklabel.png")]
    content = bytearray((tmp_path / "x.zip").read_bytes())
    for info in damaged:
        content[info.header_offset + 30 + len(info.filename) + info.file_size - 20] ^= 1
    (tmp_path / "x.zip").write_bytes(content)
    with Client(server_url) as client:
        client.create_dataset(name := next(NAMES))
        imported = client.import_archive(name, tmp_path / "x.zip")
        images = {image.name.rpartition("/")[2]: image for image in client.images(name)}
    assert {key: (image.repeats, image.mask is not None, image.caption) for key, image in images.items()} == {
        "1.png": (4, True, "cat"),
        "2.png": (4, False, "cat"),
    }
    assert [one.partition(" (")[0] for _, one in imported.unreadable] == ["it is damaged in the archive"] * 2


def test_problem_documents_become_errors_of_their_class(server_url: str) -> None:
    with Client(server_url) as client:
        name = next(NAMES)
        with pytest.raises(NotFound):
            client.dataset("of nobody")
        client.create_dataset(name, key="once")
        with pytest.raises(Rejected, match="already"):
            client.create_dataset(name)
        client.create_dataset(name, key="once")


def test_a_job_without_a_worker_has_a_waiting_reason_and_can_be_cancelled(server_url: str, image_folder: Path) -> None:
    with Client(server_url) as client:
        name = next(NAMES)
        client.create_dataset(name)
        client.import_folder(name, image_folder)
        job = client.train(name, preset="tiny-random-demo", changes={"length": {"type": "steps", "count": 3}})
        while job.phase == "freezing":
            time.sleep(0.05)
            job = client.job(job.id)
        assert job.live is not None and job.live.waiting is not None
        assert job.live.waiting.code == "no-worker"
        with pytest.raises(WaitTimeout):
            client.wait_job(job.id, timeout=0.2)
        client.cancel_job(job.id)
        assert client.wait_job(job.id, timeout=WAIT).status == "cancelled"
        types = [frame.type for frame in client.watch_job(job.id) if frame.seq]
        assert (types[0], types[-1]) == ("job.created", "job.cancelled")
        assert [one.id for one in client.jobs(dataset=name)] == [job.id]


def test_events_are_read_in_order_and_from_any_cursor(server_url: str) -> None:
    with Client(server_url) as client:
        result = client.create_dataset(next(NAMES))
        events = list(client.events())
        positions = [(event.sequence, event.index) for event in events]
        assert positions == sorted(set(positions))
        (created,) = [event for event in events if event.aggregate_id == result.id]
        assert (created.type, created.actor) == ("dataset.created", "user:local")
        rest = list(client.events(after=events[0].cursor))
        assert [event.cursor for event in rest] == [event.cursor for event in events[1:]]
        assert [event.aggregate_id for event in client.events(aggregate_id=result.id)] == [result.id]


def test_watching_again_from_a_cursor_misses_and_repeats_nothing(server_url: str) -> None:
    async def event_cursors(client: AsyncClient, after: str, count: int) -> list[str]:
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
        async with AsyncClient(server_url) as client:
            await client.create_dataset(next(NAMES))
            await client.create_dataset(next(NAMES))
            cursors = [event.cursor async for event in client.events()]
            first = await event_cursors(client, "", 1)
            rest = await event_cursors(client, first[-1], len(cursors) - 1)
            assert first + rest == cursors

    asyncio.run(walk())


def test_an_invalid_address_is_refused(server_url: str) -> None:
    with pytest.raises(SetupError, match="not a server address"):
        Client("127.0.0.1:8000").close()
    with (
        Client("http://127.0.0.1:9", retry_timeout=0.1) as client,
        pytest.raises(Unavailable, match="is `loratory up` running"),
    ):
        client.datasets()


# --- a faulty server: faults that a real one does not produce on demand

CONTENT = bytes(range(256)) * 4096
ARTIFACT = Artifact(
    name="lora.safetensors",
    format="kohya",
    digest=Digest(hashlib.sha256(CONTENT).hexdigest()),
    size=len(CONTENT),
    tensors=Digest("0" * 64),
)


class FaultyServer:
    """Sends the next of its responses to each request, then closes the connection. Records the requests."""

    def __init__(self, *responses: bytes) -> None:
        self._responses = iter(responses)
        self.requests: list[str] = []

    async def respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(next(self._responses, b""))
        await writer.drain()
        writer.close()


@asynccontextmanager
async def faulty_server(*responses: bytes) -> AsyncIterator[tuple[AsyncClient, FaultyServer]]:
    server = FaultyServer(*responses)
    listening = await asyncio.start_server(server.respond, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        async with AsyncClient(f"http://127.0.0.1:{port}", retry_timeout=5) as client:
            yield client, server
    finally:
        listening.close()
        await listening.wait_closed()


def response(status: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def test_a_write_is_retried_with_the_same_idempotency_key() -> None:
    problem = b'{"code": "unavailable", "title": "x", "detail": "the catalog is away", "status": 503}'
    busy = response("503 Service Unavailable", problem, "Retry-After: 0")
    async with faulty_server(
        b"", busy, response("201 Created", b'{"id": "ds_1", "name": "cats"}', "Loratory-Seq: 7")
    ) as (
        client,
        server,
    ):
        result = await client.create_dataset("cats")
    keys = {
        line
        for request in server.requests
        for line in request.split("\r\n")
        if line.lower().startswith("idempotency-key")
    }
    assert result.id == "ds_1"
    assert (len(server.requests), len(keys)) == (3, 1)


async def test_a_write_that_is_not_shown_yet_has_succeeded_and_the_next_write_waits_for_it() -> None:
    thresholds = response("200 OK", b'{"id": "ds_1", "name": "cats"}', "Loratory-Seq: 8")
    behind = response("503 Service Unavailable", b'{"code": "behind", "title": "x", "status": 503}', "Retry-After: 0")
    async with faulty_server(
        response("202 Accepted", b'{"id": "ds_1", "name": "cats", "shown": false}', "Loratory-Seq: 7"),
        *(behind, response("200 OK", b'{"items": [], "total": 0}'), thresholds),
    ) as (client, server):
        assert (await client.create_dataset("cats")).id == "ds_1"
        await client.set_thresholds("ds_1", general=0.1, character=0.1)
    lines = [request.split(" HTTP")[0] for request in server.requests]
    assert lines == [
        "POST /api/v1/datasets",
        *["GET /api/v1/datasets?limit=1&min_seq=7"] * 2,
        "PUT /api/v1/datasets/ds_1/thresholds",
    ]


async def test_an_erasure_that_is_not_shown_yet_is_requested_again_with_the_same_key() -> None:
    erased = b'{"id": "i", "sequence": 7, "changed": true, "images": 1, "erased_at": "2026-11-26T12:00:00Z"}'
    async with faulty_server(
        response("202 Accepted", b'{"id": "i", "sequence": 7, "shown": false}', "Loratory-Seq: 7"),
        *(response("200 OK", b'{"items": [], "total": 0}'), response("200 OK", erased, "Loratory-Seq: 7")),
    ) as (client, server):
        assert (await client.erase_image("i", key="once")).images == 1
    assert ["idempotency-key: once" in request.lower() for request in server.requests] == [True, False, True]


async def test_reads_after_a_write_ask_for_its_sequence() -> None:
    empty = b'{"items": [], "total": 0, "next": null}'
    async with faulty_server(
        response("201 Created", b'{"id": "d", "name": "cats"}', "Loratory-Seq: 7"), response("200 OK", empty)
    ) as (
        client,
        server,
    ):
        await client.create_dataset("cats")
        await client.datasets()
    assert "min_seq=7" in server.requests[1]


async def test_an_error_without_a_problem_document_is_still_a_loratory_error() -> None:
    async with faulty_server(response("404 Not Found", b"<html>")) as (client, _):
        with pytest.raises(LoratoryError, match="answered 404; is it a Loratory server"):
            await client.version()


async def test_an_interrupted_download_is_resumed(tmp_path: Path) -> None:
    cut = response("200 OK", CONTENT[:500_000], length=len(CONTENT))
    rest = response("206 Partial Content", CONTENT[500_000:])
    async with faulty_server(cut, rest) as (client, server):
        path = await client.download("job_1", ARTIFACT, tmp_path)
    assert path.read_bytes() == CONTENT
    assert "range: bytes=500000-" in server.requests[1].lower()
    assert [file.name for file in tmp_path.iterdir()] == ["lora.safetensors"]


async def test_a_damaged_download_is_not_kept(tmp_path: Path) -> None:
    async with faulty_server(response("200 OK", bytes(len(CONTENT)))) as (client, _):
        with pytest.raises(DamagedDownload, match="has sha256"):
            await client.download("job_1", ARTIFACT, tmp_path)
    assert list(tmp_path.iterdir()) == []
