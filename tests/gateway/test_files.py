"""Downloads and uploads: ranges, headers, and staged files that are always removed."""

import asyncio
import hashlib
from base64 import b64encode
from contextlib import AsyncExitStack
from io import BytesIO
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contracts.aggregates import CommandEnvelope
from contracts.commands.datasets import ImportImages, ImportResult, StagedFile, StagedMask
from contracts.errors import BlobMissing, Lost, NotFound, Rejected
from contracts.events.jobs import Artifact
from contracts.ids import Digest, JobId
from contracts.jpeg_cut import take_apart
from contracts.queries.datasets import GetDataset, GetImage
from contracts.queries.jobs import GetJob
from contracts.queries.losses import BlobView, GetBlob
from contracts.telemetry import LossBlock
from contracts.wire.blobs.source import RebuiltSource
from gateway.http import uploads
from gateway.http.files import CONCURRENTLY_REBUILT, content_disposition, parse_range, sniff_media_type
from gateway.http.problems import RangeNotSatisfiable
from gateway.limits import UploadLimits
from gateway.routes.results import build_loss_curve
from tests.gateway.conftest import Limits, World, eventually
from tests.gateway.fake_catalog import dataset, image, import_all, job
from tests.gateway.test_http import assert_problem

P = "/api/v1"
MAX_FILES, MAX_FILE_BYTES = 80, 3 << 20
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))


@pytest.fixture(scope="module")
def limits() -> Limits:
    return Limits(upload=UploadLimits(files=MAX_FILES, file_bytes=MAX_FILE_BYTES))


async def picture(world: World, **changes: Any) -> str:
    digest = await world.blobs.put(PNG)
    world.catalog.query_results[GetImage] = image(picture=digest, source=digest, thumbnail=digest, **changes)
    return f"{P}/images/img_1/file"


@pytest.mark.asyncio(loop_scope="module")
async def test_an_image_is_served_whole_and_cached_for_an_hour_only_as_it_can_be_erased(world: World) -> None:
    response = await world.client.get(await picture(world))
    assert response.status_code == 200
    assert response.content == PNG
    digest = hashlib.sha256(PNG)
    assert response.headers["etag"] == f'"{digest.hexdigest()}"'
    assert response.headers["repr-digest"] == f"sha-256=:{b64encode(digest.digest()).decode()}:"
    assert response.headers["content-type"] == "image/png"
    assert response.headers["cache-control"] == "private, max-age=3600"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in response.headers["content-security-policy"]


def photograph() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "52.5200 N"
    buffer = BytesIO()
    Image.effect_noise((40, 30), 80).convert("RGB").save(buffer, "JPEG", exif=exif.tobytes())
    return buffer.getvalue()


@pytest.mark.asyncio(loop_scope="module")
async def test_the_file_as_received_is_rebuilt_from_picture_and_cut(world: World) -> None:
    source = photograph()
    apart = take_apart(source, 6)
    assert apart is not None and apart.cut is not None
    stored = {"picture": await world.blobs.put(apart.picture), "cut": await world.blobs.put(apart.cut)}
    digest = Digest(hashlib.sha256(source).hexdigest())
    world.catalog.query_results[GetImage] = image(source=digest, **stored)
    path = f"{P}/images/img_1/file"

    assert (await world.client.get(path)).content == apart.picture
    whole = await world.client.get(path, params={"original": True})
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, source, "image/jpeg")
    assert whole.headers["etag"] == f'"{digest}"'
    assert whole.headers["content-disposition"].startswith("attachment")
    part = await world.client.get(path, params={"original": True}, headers={"Range": "bytes=2-9"})
    assert (part.status_code, part.content) == (206, source[2:10])
    same = await world.client.get(path, params={"original": True}, headers={"If-None-Match": f'"{digest}"'})
    assert (same.status_code, same.content) == (304, b"")
    head = await world.client.head(path, params={"original": True})
    assert (head.content, head.headers["content-length"]) == (b"", str(len(source)))

    world.catalog.query_results[GetImage] = image(source="0" * 64, **stored)
    assert_problem(await world.client.get(path, params={"original": True}), 409, "blob-missing")


@pytest.mark.asyncio(loop_scope="module")
async def test_few_files_are_rebuilt_at_once_and_none_waits_for_a_slow_client(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = photograph() + bytes(8 << 20)  # more than sockets and buffers hold
    apart = take_apart(source, 6)
    assert apart is not None and apart.cut is not None
    stored = {"picture": await world.blobs.put(apart.picture), "cut": await world.blobs.put(apart.cut)}
    digest = Digest(hashlib.sha256(source).hexdigest())
    world.catalog.query_results[GetImage] = image(source=digest, **stored)
    path, params = f"{P}/images/img_1/file", {"original": True}
    held = most = 0
    opened = RebuiltSource.open

    async def counted(*arguments: Any, **named: Any) -> RebuiltSource:
        nonlocal held, most
        held += 1
        most = max(most, held)
        try:
            return await opened(*arguments, **named)
        finally:
            held -= 1

    monkeypatch.setattr(RebuiltSource, "open", counted)
    async with AsyncExitStack() as slow:
        for _ in range(CONCURRENTLY_REBUILT + 1):
            await slow.enter_async_context(world.client.stream("GET", path, params=params))
        answers = await asyncio.gather(*[world.client.get(path, params=params) for _ in range(6)])
    assert all(answer.content == source for answer in answers)
    assert 1 <= most <= CONCURRENTLY_REBUILT


@pytest.mark.asyncio(loop_scope="module")
async def test_ranges_head_requests_and_revalidation(world: World) -> None:
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


@pytest.mark.asyncio(loop_scope="module")
async def test_the_original_is_an_attachment_with_its_file_name(world: World) -> None:
    path = await picture(world, name='one/Ümläut "x".png')
    response = await world.client.get(path, params={"original": "1"})
    assert response.headers["content-disposition"].startswith("attachment; ")
    assert response.headers["content-disposition"].endswith("filename*=UTF-8''%C3%9Cml%C3%A4ut%20%22x%22.png")
    assert "one" not in response.headers["content-disposition"]
    assert (await world.client.get("/api/images/img_1/file")).content == PNG


@pytest.mark.asyncio(loop_scope="module")
async def test_an_image_with_a_missing_blob_is_not_found(world: World) -> None:
    world.catalog.query_results[GetImage] = image()
    assert_problem(await world.client.get(f"{P}/images/img_1/file"), 404, "not-found")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_lora_is_downloaded_by_name(world: World) -> None:
    digest = await world.blobs.put(b"x" * 5000)
    artifact = Artifact(name="dog.safetensors", format="kohya", digest=digest, size=5000, tensors=digest)
    world.catalog.query_results[GetJob] = job(artifacts=(artifact,))
    response = await world.client.get(f"{P}/jobs/job_1/artifacts/dog.safetensors")
    assert len(response.content) == 5000
    assert 'filename="dog.safetensors"' in response.headers["content-disposition"]
    missing = await world.client.get(f"{P}/jobs/job_1/artifacts/cat.safetensors")
    assert assert_problem(missing, 404, "not-found")["names"] == ["dog.safetensors"]


def form(*names: str, size: int = 10) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (name, name.encode() * size)) for name in names]


@pytest.mark.asyncio(loop_scope="module")
async def test_files_are_staged_imported_in_batches_and_removed(world: World) -> None:
    world.catalog.query_results[GetDataset] = dataset()
    received: list[CommandEnvelope[ImportImages]] = []

    def check_and_import(envelope: CommandEnvelope[ImportImages]) -> ImportResult:
        for file in envelope.command.files:
            content = (world.staging / file.token).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file.digest
            assert len(content) == file.size
        received.append(envelope)
        return import_all(envelope.command)

    world.catalog.command_results[ImportImages] = check_and_import
    names = [f"{number}.png" for number in range(70)]
    texts = {"captions": '{"3.png": "a dog"}', "tags": '{"4.png": ["red", "cat"]}'}
    response = await world.client.post(
        f"{P}/datasets/dog/images", files=form(*names), data=texts, headers={"Idempotency-Key": "k"}
    )
    assert response.status_code == 201
    assert response.headers["loratory-seq"] == "9"
    assert [item["name"] for item in response.json()["items"]] == names
    assert [len(envelope.command.files) for envelope in received] == [32, 32, 6]
    assert len({envelope.metadata.command_id for envelope in received}) == 3
    assert received[0].command.files[3].caption == "a dog"
    assert received[0].command.files[4].tags == ("red", "cat")
    assert list(world.staging.iterdir()) == []

    again = await world.client.post(
        f"{P}/datasets/dog/images", files=form(*names), data=texts, headers={"Idempotency-Key": "k"}
    )
    assert again.status_code == 201
    command_ids = [envelope.metadata.command_id for envelope in received]
    assert command_ids[3:] == command_ids[:3]
    assert {envelope.metadata.fingerprint for envelope in received} == {received[0].metadata.fingerprint}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_file_too_large_is_refused_and_the_others_are_imported(world: World) -> None:
    world.catalog.query_results[GetDataset] = dataset()
    files = [("files", ("large.png", b"x" * (MAX_FILE_BYTES + 1))), ("files", ("small.png", b"x" * MAX_FILE_BYTES))]
    response = await world.client.post(f"{P}/datasets/dog/images", files=files)
    outcomes = {item["name"]: (item["outcome"], item.get("reason")) for item in response.json()["items"]}
    assert outcomes == {"small.png": ("added", None), "large.png": ("refused", "too-large")}
    assert list(world.staging.iterdir()) == []


@pytest.mark.asyncio(loop_scope="module")
async def test_an_interrupted_upload_leaves_no_staged_files(world: World) -> None:
    world.catalog.query_results[GetDataset] = dataset()
    host, port = world.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {P}/datasets/dog/images HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5000000\r\n"
    part = '--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    writer.write(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n{part}".encode() + bytes(2 << 20))

    async def is_staged() -> bool:
        return any(world.staging.iterdir())

    async def is_removed() -> bool:
        return not await is_staged()

    await eventually(is_staged)
    writer.close()
    await eventually(is_removed)
    assert world.catalog.received_commands == []


@pytest.mark.asyncio(loop_scope="module")
async def test_failed_uploads_leave_no_staged_files(world: World) -> None:
    path = f"{P}/datasets/dog/images"
    assert_problem(await world.client.post(path, files=form("a.png")), 404, "not-found")
    world.catalog.query_results[GetDataset] = dataset()
    assert_problem(await world.client.post(path, json={}), 415, "unsupported-media-type")
    assert_problem(await world.client.post(path, files={"other": ("a.png", b"x")}), 400, "invalid")
    empty = {"Content-Type": "multipart/form-data; boundary=x"}
    assert_problem(await world.client.post(path, content=b"--x--\r\n", headers=empty), 400, "invalid")
    broken = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nabc'
    assert_problem(await world.client.post(path, content=broken, headers=empty), 400, "invalid")
    texts = {"captions": "[1]"}
    body = assert_problem(await world.client.post(path, files=form("a.png"), data=texts), 400, "invalid")
    assert body["detail"] == "captions must be an object, not a list"
    world.catalog.command_results[ImportImages] = Rejected("no")
    assert_problem(await world.client.post(path, files=form("a.png")), 422, "rejected")
    too_many = form(*(f"{number}.png" for number in range(MAX_FILES + 1)))
    assert_problem(await world.client.post(path, files=too_many), 413, "too-large")
    assert list(world.staging.iterdir()) == []


@given(st.binary(max_size=50), st.integers(0, 60), st.integers(0, 60))
def test_a_byte_range_equals_a_slice(content: bytes, first: int, last: int) -> None:
    try:
        byte_range = parse_range(f"bytes={first}-{last}", len(content))
    except RangeNotSatisfiable:
        assert first >= len(content)
        return
    if byte_range is None:
        assert last < first
    else:
        assert content[byte_range.start : byte_range.stop] == content[first : last + 1] != b""


@pytest.mark.parametrize("header", ["bytes=0-1,3-4", "lines=1-2", "bytes=-", "bytes=5-1", "nonsense"])
def test_unsupported_ranges_mean_the_whole_file(header: str) -> None:
    assert parse_range(header, 10) is None


def test_file_names_cannot_inject_headers() -> None:
    assert "\n" not in content_disposition('a"\r\nSet-Cookie: x')
    assert content_disposition("").startswith('attachment; filename="file"')
    assert sniff_media_type(b"<svg onload=alert(1)>") == "application/octet-stream"


def test_a_later_block_replaces_steps_and_the_last_point_is_kept() -> None:
    first = LossBlock(job_id=JobId("j"), attempt=1, first=1, losses=(1.0, 2.0, 3.0), rates=(0.1, 0.1, 0.1))
    later = LossBlock(job_id=JobId("j"), attempt=9, first=3, losses=(30.0, 40.0), rates=(0.2, 0.2))
    assert build_loss_curve(JobId("j"), [first, later], 0, 100).losses == (1.0, 2.0, 30.0, 40.0)
    assert build_loss_curve(JobId("j"), [first, later], 1, 100).steps == (2, 3, 4)
    assert build_loss_curve(JobId("j"), [first, later], 0, 2).steps == (2, 4)
    assert build_loss_curve(JobId("j"), [], 0, 2).steps == ()


def test_texts_are_assigned_to_files_by_name() -> None:
    staged = StagedFile(token="t", name="a.png", digest=Digest("0" * 64), size=1)
    upload = uploads.Upload([staged, msgspec.structs.replace(staged, name="b.png")])
    uploads.add_values(upload, {"captions": b'{"a.png": "hello", "c.png": "of none"}', "texts": b'{"b.png": "1girl"}'})
    assert [(file.caption, file.text) for file in upload.files] == [("hello", None), (None, "1girl")]
    assert (upload.refused, upload.unmatched) == ([], ["c.png"])


def test_a_file_with_a_bad_or_ambiguous_text_is_refused_by_itself() -> None:
    staged = StagedFile(token="t", name="good.png", digest=Digest("0" * 64), size=1)
    names = ("good.png", "long.png", "list.png", "both.png", "same.png", "same.png")
    upload = uploads.Upload([msgspec.structs.replace(staged, name=name) for name in names])
    captions = {"good.png": "hello", "long.png": "x" * 20_001, "both.png": "hello", "same.png": "whose?"}
    fields = {"captions": captions, "tags": {"list.png": "no list"}, "texts": {"both.png": "1girl"}}
    uploads.add_values(upload, {name: msgspec.json.encode(values) for name, values in fields.items()})
    assert [file.name for file in upload.files] == ["good.png"]
    reasons = [(file.name, file.reason) for file in upload.refused]
    assert reasons == [
        ("long.png", "bad-text"),
        ("list.png", "bad-text"),
        ("both.png", "bad-text"),
        ("same.png", "same-name"),
        ("same.png", "same-name"),
    ]


def test_repeats_and_masks_are_assigned_to_files_by_name() -> None:
    staged = StagedFile(token="t", name="a.png", digest=Digest("0" * 64), size=1)
    mask = StagedMask(token="m", digest=Digest("1" * 64), size=2)
    names = ("a.png", "b.png", "many.png", "none.png", "word.png", "two.png", "same.png", "same.png")
    upload = uploads.Upload([msgspec.structs.replace(staged, name=name) for name in names])
    upload.masks = {"a.png": [mask], "of nothing.png": [mask], "two.png": [mask, mask], "same.png": [mask]}
    repeats = {"a.png": 3, "b.png": 10_000, "many.png": 10_001, "none.png": 0, "word.png": "3", "c.png": 2}
    fields = {"repeats": repeats, "texts": {"b.png": "1girl"}}
    uploads.add_values(upload, {name: msgspec.json.encode(values) for name, values in fields.items()})
    assert [(file.name, file.repeats, file.mask, file.text) for file in upload.files] == [
        ("a.png", 3, mask, None),
        ("b.png", 10_000, None, "1girl"),
    ]
    assert upload.unmatched == ["c.png", "of nothing.png"]
    assert [(file.name, file.reason) for file in upload.refused] == [
        *((name, "bad-repeats") for name in ("many.png", "none.png", "word.png")),
        *((name, "same-name") for name in ("two.png", "same.png", "same.png")),
    ]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_missing_file_answers_what_the_catalog_says_is_wrong(world: World) -> None:
    path = await picture(world)
    digest = Digest(hashlib.sha256(PNG).hexdigest())
    await world.blobs.delete([digest])
    for error, status, code in (
        (BlobMissing("the picture of img_1 is missing", blob=digest), 409, "blob-missing"),
        (Lost("the picture of img_1 is lost for good"), 410, "lost"),
        (NotFound("nothing names it"), 404, "not-found"),
    ):
        world.catalog.query_results[GetBlob] = error
        problem = assert_problem(await world.client.get(path), status, code)
        assert problem["detail"] == error.detail
    assert [query.blob for query in world.catalog.received_queries if isinstance(query, GetBlob)] == [digest] * 3


@pytest.mark.asyncio(loop_scope="module")
async def test_a_file_that_the_catalog_makes_again_is_served(world: World) -> None:
    path = await picture(world)
    digest = Digest(hashlib.sha256(PNG).hexdigest())
    await world.blobs.delete([digest])
    target = world.blobs.path(digest)

    def make_again(query: GetBlob) -> BlobView:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(PNG)
        return BlobView(blob=query.blob, size=len(PNG))

    world.catalog.query_results[GetBlob] = make_again

    assert (await world.client.get(path)).content == PNG


@pytest.mark.asyncio(loop_scope="module")
async def test_the_picture_is_served_for_a_thumbnail_that_is_lost(world: World) -> None:
    picture_digest, absent = await world.blobs.put(PNG), Digest("0" * 64)
    world.catalog.query_results[GetImage] = image(picture=picture_digest, source=picture_digest, thumbnail=absent)
    for error in (BlobMissing("it is missing"), Lost("it is lost for good")):
        world.catalog.query_results[GetBlob] = error
        response = await world.client.get(f"{P}/images/img_1/thumbnail")
        assert (response.status_code, response.content) == (200, PNG)
