"""Bytes over HTTP, out and in: ranges, headers, and uploads that leave nothing behind."""

import asyncio
import hashlib
from base64 import b64encode
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import commands, queries
from contracts.commands import Command
from contracts.errors import Rejected
from contracts.events import Artifact
from contracts.ids import Digest, JobId
from contracts.telemetry import LossBlock
from gateway.http import uploads
from gateway.http.files import disposition, sniffed, span_of
from gateway.http.problems import RangeNotSatisfiable
from gateway.routes.results import curve
from tests.gateway.conftest import World, eventually
from tests.gateway.stand_in import dataset, image, job
from tests.gateway.test_http import assert_problem

P = "/api/v1"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))


async def picture(world: World, **changes: Any) -> str:
    digest = await world.blobs.put(PNG)
    world.catalog.answers[queries.GetImage] = image(picture=digest, source=digest, thumbnail=digest, **changes)
    return f"{P}/images/img_1/file"


async def test_a_picture_is_served_whole_and_asked_for_again_within_the_hour_as_it_can_be_erased(world: World) -> None:
    answer = await world.client.get(await picture(world))
    assert answer.status_code == 200
    assert answer.content == PNG
    digest = hashlib.sha256(PNG)
    assert answer.headers["etag"] == f'"{digest.hexdigest()}"'
    assert answer.headers["repr-digest"] == f"sha-256=:{b64encode(digest.digest()).decode()}:"
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "private, max-age=3600"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


async def test_ranges_heads_and_known_files(world: World) -> None:
    path = await picture(world)
    part = await world.client.get(path, headers={"Range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, PNG[1:4])
    assert part.headers["content-range"] == f"bytes 1-3/{len(PNG)}"
    tail = await world.client.get(path, headers={"Range": "bytes=-5"})
    assert tail.content == PNG[-5:]

    beyond = await world.client.get(path, headers={"Range": "bytes=9999-"})
    assert_problem(beyond, 416, "range-not-satisfiable")

    head = await world.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(PNG))
    etag = head.headers["etag"]
    assert (await world.client.get(path, headers={"If-None-Match": f'"x", W/{etag}'})).status_code == 304
    changed = await world.client.get(path, headers={"Range": "bytes=0-0", "If-Range": '"another"'})
    assert changed.status_code == 200
    same = await world.client.get(path, headers={"Range": "bytes=0-0", "If-Range": etag})
    assert same.status_code == 206


async def test_the_source_comes_as_an_attachment_under_its_name(world: World) -> None:
    path = await picture(world, name='Ümläut "x".png')
    answer = await world.client.get(path, params={"original": "1"})
    assert answer.headers["content-disposition"].startswith("attachment; ")
    assert "filename*=UTF-8''%C3%9Cml%C3%A4ut%20%22x%22.png" in answer.headers["content-disposition"]
    assert (await world.client.get("/api/images/img_1/file")).content == PNG


async def test_a_picture_whose_bytes_are_gone_is_a_problem(world: World) -> None:
    world.catalog.answers[queries.GetImage] = image()
    assert_problem(await world.client.get(f"{P}/images/img_1/file"), 404, "not-found")


async def test_a_lora_is_downloaded_by_name(world: World) -> None:
    digest = await world.blobs.put(b"x" * 5000)
    artifact = Artifact(name="dog.safetensors", format="kohya", digest=digest, size=5000, tensors=digest)
    world.catalog.answers[queries.GetJob] = job(artifacts=(artifact,))
    answer = await world.client.get(f"{P}/jobs/job_1/artifacts/dog.safetensors")
    assert len(answer.content) == 5000
    assert 'filename="dog.safetensors"' in answer.headers["content-disposition"]
    missing = await world.client.get(f"{P}/jobs/job_1/artifacts/cat.safetensors")
    assert assert_problem(missing, 404, "not-found")["names"] == ["dog.safetensors"]


def form(*names: str, size: int = 10) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (name, name.encode() * size)) for name in names]


async def test_files_are_staged_told_in_commands_and_cleared_away(world: World) -> None:
    world.catalog.answers[queries.GetDataset] = dataset()
    seen: list[Command] = []

    def take(command: Command) -> Any:
        for file in command.wish.files:
            content = (world.staging / file.token).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file.digest
            assert len(content) == file.size
        seen.append(command)
        from tests.gateway.stand_in import imported  # noqa: PLC0415

        return imported(command)

    world.catalog.wishes[commands.ImportImages] = take
    names = [f"{number}.png" for number in range(70)]
    words = {"captions": '{"3.png": "a dog"}', "tags": '{"4.png": ["red", "cat"]}'}
    answer = await world.client.post(
        f"{P}/datasets/dog/images", files=form(*names), data=words, headers={"Idempotency-Key": "k"}
    )
    assert answer.status_code == 201
    assert answer.headers["loratory-seq"] == "9"
    assert [item["name"] for item in answer.json()["items"]] == names
    assert [len(command.wish.files) for command in seen] == [32, 32, 6]
    assert len({command.origin.command for command in seen}) == 3
    assert seen[0].wish.files[3].caption == "a dog"
    assert seen[0].wish.files[4].tags == ("red", "cat")
    assert list(world.staging.iterdir()) == []

    again = await world.client.post(
        f"{P}/datasets/dog/images", files=form(*names), data=words, headers={"Idempotency-Key": "k"}
    )
    assert again.status_code == 201
    assert [one.origin.command for one in seen[3:]] == [one.origin.command for one in seen[:3]]
    assert {one.origin.fingerprint for one in seen} == {seen[0].origin.fingerprint}


async def test_a_file_too_large_is_refused_and_the_others_go_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "FILE_BYTES", 1000)
    world.catalog.answers[queries.GetDataset] = dataset()
    files = [("files", ("large.png", b"x" * 1001)), ("files", ("small.png", b"x" * 1000))]
    answer = await world.client.post(f"{P}/datasets/dog/images", files=files)
    outcomes = {item["name"]: (item["outcome"], item.get("reason")) for item in answer.json()["items"]}
    assert outcomes == {"small.png": ("added", None), "large.png": ("refused", "too-large")}
    assert list(world.staging.iterdir()) == []


async def test_an_upload_that_breaks_off_leaves_nothing_behind(world: World) -> None:
    world.catalog.answers[queries.GetDataset] = dataset()
    host, port = world.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {P}/datasets/dog/images HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5000000\r\n"
    part = '--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    writer.write(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n{part}".encode() + bytes(2 << 20))

    async def staged() -> bool:
        return any(world.staging.iterdir())

    async def cleared() -> bool:
        return not await staged()

    await eventually(staged)
    writer.close()
    await eventually(cleared)
    assert world.catalog.told == []


async def test_uploads_that_fail_leave_nothing_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{P}/datasets/dog/images"
    assert_problem(await world.client.post(path, files=form("a.png")), 404, "not-found")
    world.catalog.answers[queries.GetDataset] = dataset()
    assert_problem(await world.client.post(path, json={}), 415, "unsupported-media-type")
    assert_problem(await world.client.post(path, files={"other": ("a.png", b"x")}), 400, "invalid")
    empty = {"Content-Type": "multipart/form-data; boundary=x"}
    assert_problem(await world.client.post(path, content=b"--x--\r\n", headers=empty), 400, "invalid")
    broken = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nabc'
    assert_problem(await world.client.post(path, content=broken, headers=empty), 400, "invalid")
    words = {"captions": "[1]"}
    assert_problem(await world.client.post(path, files=form("a.png"), data=words), 400, "invalid")
    world.catalog.wishes[commands.ImportImages] = Rejected("no")
    assert_problem(await world.client.post(path, files=form("a.png")), 422, "rejected")
    monkeypatch.setattr(uploads, "MOST_FILES", 3)
    assert_problem(await world.client.post(path, files=form(*"abcd")), 413, "too-large")
    assert list(world.staging.iterdir()) == []


@given(st.binary(max_size=50), st.integers(0, 60), st.integers(0, 60))
def test_a_span_is_what_slicing_gives(content: bytes, first: int, last: int) -> None:
    try:
        span = span_of(f"bytes={first}-{last}", len(content))
    except RangeNotSatisfiable:
        assert first >= len(content)
        return
    if span is None:
        assert last < first
    else:
        assert content[span.start : span.end] == content[first : last + 1] != b""


@pytest.mark.parametrize("header", ["bytes=0-1,3-4", "lines=1-2", "bytes=-", "bytes=5-1", "nonsense"])
def test_ranges_we_do_not_know_mean_the_whole_file(header: str) -> None:
    assert span_of(header, 10) is None


def test_names_cannot_break_out_of_their_header() -> None:
    assert "\n" not in disposition('a"\r\nSet-Cookie: x')
    assert disposition("").startswith('attachment; filename="file"')
    assert sniffed(b"<svg onload=alert(1)>") == "application/octet-stream"


def test_a_later_block_replaces_steps_and_the_last_point_stays() -> None:
    first = LossBlock(job_id=JobId("j"), attempt=1, first=1, losses=(1.0, 2.0, 3.0), rates=(0.1, 0.1, 0.1))
    later = LossBlock(job_id=JobId("j"), attempt=9, first=3, losses=(30.0, 40.0), rates=(0.2, 0.2))
    assert curve(JobId("j"), [first, later], 0, 100).losses == (1.0, 2.0, 30.0, 40.0)
    assert curve(JobId("j"), [first, later], 1, 100).steps == (2, 3, 4)
    assert curve(JobId("j"), [first, later], 0, 2).steps == (2, 4)
    assert curve(JobId("j"), [], 0, 2).steps == ()


def test_a_digest_is_found_in_words_of_files() -> None:
    staged = commands.StagedFile(token="t", name="a.png", digest=Digest("0" * 64), size=1)
    upload = uploads.Upload(files=[staged], words=uploads.Words(captions={"a.png": "hello"}))
    assert msgspec.structs.asdict(upload.with_words()[0])["caption"] == "hello"
