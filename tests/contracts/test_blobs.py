"""Blob storage, in a folder and in an object store: blobs are complete or absent, and read as they were stored."""

import asyncio
import hashlib
import os
import sys
import time
from pathlib import Path

import pytest
from obstore.store import LocalStore, S3Store

from contracts.errors import Invalid, NotFound, SetupError, TooLarge, Unavailable
from contracts.ids import Digest
from contracts.testing import MemoryBlobs
from contracts.thread_cancellation import ThreadCancellation
from contracts.wire.blobs.store import Blobs, Damaged, LocalBlobs, RemoteBlobs, blobs_at
from tests.limits import WAIT

FOX = b"a red fox" * 300_000  # 2.7 MB: several chunks


def digest_of(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())


@pytest.fixture(params=["local", "memory", "object-folder"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    match request.param:
        case "local":
            return LocalBlobs(tmp_path / "blobs")
        case "memory":
            return MemoryBlobs()
        case _:
            (tmp_path / "bucket").mkdir()
            return RemoteBlobs(LocalStore(tmp_path / "bucket"))


async def read_stream(blobs: Blobs, digest: Digest, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([piece async for piece in blobs.stream(digest, start, end)])


@pytest.mark.parametrize("content", [b"", b"x", FOX])
async def test_stored_bytes_can_be_read_in_every_way(blobs: Blobs, content: bytes, tmp_path: Path) -> None:
    digest = await blobs.put(content)
    assert digest == digest_of(content)
    assert await blobs.get(digest) == content
    assert await blobs.size(digest) == len(content)
    assert await blobs.exists(digest)
    assert await read_stream(blobs, digest) == content
    await blobs.fetch(digest, tmp_path / "out" / "file")
    assert (tmp_path / "out" / "file").read_bytes() == content


async def test_a_file_has_the_digest_of_its_bytes(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "fox").write_bytes(FOX)
    assert await blobs.put(tmp_path / "fox") == await blobs.put(FOX) == digest_of(FOX)
    assert await blobs.get(digest_of(FOX)) == FOX


@pytest.mark.parametrize(
    ("start", "end"), [(0, 10), (5, 6), (1_048_570, 1_048_590), (2_699_990, 9_000_000), (7, 7), (9_000_000, None)]
)
async def test_a_range_is_a_slice(blobs: Blobs, start: int, end: int | None) -> None:
    digest = await blobs.put(FOX)
    assert await read_stream(blobs, digest, start, end) == FOX[start:end]


async def test_a_missing_blob_raises_not_found(blobs: Blobs, tmp_path: Path) -> None:
    absent = digest_of(b"never put")
    assert not await blobs.exists(absent)
    for access in (
        blobs.get(absent),
        blobs.size(absent),
        blobs.fetch(absent, tmp_path / "out"),
        read_stream(blobs, absent),
    ):
        with pytest.raises(NotFound):
            await access
    assert list(tmp_path.glob("*out*")) == []


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
async def test_a_malformed_digest_is_invalid(blobs: Blobs, name: str) -> None:
    for access in (blobs.get(Digest(name)), blobs.size(Digest(name)), blobs.exists(Digest(name))):
        with pytest.raises(Invalid):
            await access
    with pytest.raises(Invalid):
        blobs.path(Digest(name))


async def test_more_than_the_limit_is_not_read_into_memory(blobs: Blobs) -> None:
    digest = await blobs.put(FOX)
    with pytest.raises(TooLarge):
        await blobs.get(digest, limit=len(FOX) - 1)
    assert await blobs.get(digest, limit=len(FOX)) == FOX


@pytest.mark.parametrize("damaged", [b"\x00" + FOX[1:], FOX[:-1], FOX + b"!", b""])
async def test_damaged_blobs_are_detected_and_never_returned(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "root").mkdir()
    for blobs in (LocalBlobs(tmp_path / "root"), RemoteBlobs(LocalStore(tmp_path / "root"))):
        digest = await blobs.put(FOX)
        LocalBlobs(tmp_path / "root").path(digest).write_bytes(damaged)
        with pytest.raises(Damaged, match=digest):
            await blobs.get(digest)
        with pytest.raises(Damaged):
            await blobs.fetch(digest, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        LocalBlobs(tmp_path / "root").path(digest).unlink()


async def test_putting_again_renews_the_time_and_replaces_a_file_of_another_size(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    digest = await blobs.put(FOX)
    os.utime(blobs.path(digest), (1, 1))
    await blobs.put(FOX)
    assert time.time() - blobs.path(digest).stat().st_mtime < 3600
    blobs.path(digest).write_bytes(FOX[:1000])
    await blobs.put(FOX)
    assert await blobs.get(digest) == FOX


async def test_concurrent_writers_of_the_same_bytes_leave_one_file(tmp_path: Path) -> None:
    blobs, same_folder = LocalBlobs(tmp_path / "blobs"), LocalBlobs(tmp_path / "blobs")
    assert set(await asyncio.gather(*(backend.put(FOX) for backend in (blobs, same_folder) * 8))) == {digest_of(FOX)}
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == [blobs.path(digest_of(FOX))]


async def test_a_killed_writer_leaves_only_complete_blobs(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys, pathlib\n"
        "from contracts.wire.blobs.store import LocalBlobs\n"
        "async def main():\n"
        "    blobs = LocalBlobs(pathlib.Path(sys.argv[1]))\n"
        "    for number in range(100_000):\n"
        "        print(await blobs.put(bytes([number % 256]) * 3_000_000 + str(number).encode()), flush=True)\n"
        "asyncio.run(main())\n"
    )
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path / "blobs"), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    acknowledged = [Digest((await writer.stdout.readline()).decode().strip()) for _ in range(5)]
    writer.kill()
    await writer.communicate()
    blobs = LocalBlobs(tmp_path / "blobs")
    found = {path.name: digest_of(path.read_bytes()) for path in (tmp_path / "blobs").glob("??/??/*")}
    assert all(name == digest for name, digest in found.items())
    assert set(acknowledged) <= set(found)
    for temporary_file in (tmp_path / "blobs" / "tmp").iterdir():
        os.utime(temporary_file, (1, 1))
    await blobs.remove_abandoned_drafts()
    assert list((tmp_path / "blobs" / "tmp").iterdir()) == []


async def test_a_recent_unfinished_file_is_not_removed(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    await blobs.put(b"x")
    (tmp_path / "tmp" / ".young.draft").write_bytes(b"")
    assert await blobs.remove_abandoned_drafts() == 0


async def test_a_store_that_does_not_answer_is_unavailable() -> None:
    store = S3Store(
        "bucket",
        endpoint="http://127.0.0.1:1",
        access_key_id="id",
        secret_access_key="secret",
        region="here",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    with pytest.raises(Unavailable, match="blob store"):
        await RemoteBlobs(store).size(digest_of(b""))


def test_the_location_determines_the_backend(tmp_path: Path) -> None:
    assert isinstance(blobs_at(str(tmp_path)), LocalBlobs)
    assert isinstance(blobs_at("memory:///"), RemoteBlobs)
    with pytest.raises(SetupError, match="is not a location for blobs"):
        blobs_at("gopher://bucket")


async def test_only_local_blobs_have_a_path(tmp_path: Path) -> None:
    local = LocalBlobs(tmp_path)
    digest = await local.put(FOX)
    assert local.path(digest).read_bytes() == FOX
    remote: Blobs = MemoryBlobs()
    assert remote.path(digest) is None
    assert isinstance(local, Blobs)
    assert isinstance(remote, Blobs)


async def test_deleting_a_blob_is_idempotent(blobs: Blobs) -> None:
    fox, dog = await blobs.put(FOX), await blobs.put(b"a dog")
    for _ in range(2):
        await blobs.delete([fox, digest_of(b"never there")])
        assert not await blobs.exists(fox)
        assert await blobs.exists(dog)
    assert await blobs.put(FOX) == fox
    assert await blobs.get(fox) == FOX


async def test_deleting_a_blob_also_deletes_unfinished_files_of_it(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    fox = await blobs.put(FOX)
    for name, content in {
        "whole": FOX,
        "half": FOX[:1_000_000],
        "other": b"a dog",
        "longer": FOX + b"!",
        "new": b"",
    }.items():
        (tmp_path / "blobs" / "tmp" / f".{name}.draft").write_bytes(content)
    await blobs.delete([fox])
    assert {file.name for file in (tmp_path / "blobs" / "tmp").iterdir()} == {
        ".other.draft",
        ".longer.draft",
        ".new.draft",
    }


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes of POSIX")
@pytest.mark.parametrize("after", [[], [FOX]], ids=["one", "the second of two"])
async def test_a_cancelled_put_stores_nothing(tmp_path: Path, after: list[bytes]) -> None:
    """Not even the first of two, whose bytes were read already."""
    blobs, slow, cancellation = LocalBlobs(tmp_path / "blobs"), tmp_path / "slow", ThreadCancellation()
    os.mkfifo(slow)
    putting = asyncio.create_task(blobs.put_all([*after, slow], cancellation) if after else blobs.put(slow))
    with await asyncio.to_thread(slow.open, "wb") as writer:
        await asyncio.to_thread(writer.write, FOX)  # more than fits into the pipe: the other end is reading
        if after:
            assert cancellation.cancel()
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
        assert putting.cancelled()
    async with asyncio.timeout(WAIT):
        while any(file.is_file() for file in (tmp_path / "blobs").rglob("*")):  # noqa: ASYNC110 - a thread removes its draft
            await asyncio.sleep(0.01)


async def test_several_blobs_are_stored_together(blobs: Blobs) -> None:
    cancellation = ThreadCancellation()
    assert await blobs.put_all([FOX, b"a dog", FOX], cancellation) == [
        digest_of(FOX),
        digest_of(b"a dog"),
        digest_of(FOX),
    ]
    assert not cancellation.cancel()
    assert await blobs.get(digest_of(FOX)) == FOX
    assert await blobs.get(digest_of(b"a dog")) == b"a dog"


async def listed(blobs: Blobs, prefix: str = "") -> dict[str, int]:
    return {digest: size async for part in blobs.listing(prefix) for digest, size in part}


async def test_all_blobs_are_listed_with_their_sizes_or_those_with_a_prefix(blobs: Blobs) -> None:
    assert await listed(blobs) == {}
    sizes = {
        await blobs.put(content): len(content) for content in (b"", b"x", FOX, *(bytes([one]) for one in range(60)))
    }

    assert await listed(blobs) == sizes

    for digest, size in sizes.items():
        for prefix in (digest[:2], digest[:4]):
            expected = {one: length for one, length in sizes.items() if one.startswith(prefix)}
            assert await listed(blobs, prefix) == expected
            assert expected[digest] == size
    assert await listed(blobs, "0000") == {}


async def test_a_blob_that_was_set_aside_is_missing_and_can_be_put_again(blobs: Blobs) -> None:
    digest = await blobs.put(FOX)

    await blobs.set_aside(digest)
    await blobs.set_aside(digest)

    assert not await blobs.exists(digest)
    assert await listed(blobs) == {}
    assert await blobs.put(FOX) == digest
    assert await blobs.get(digest) == FOX


async def test_a_deleted_blob_leaves_no_copy_that_was_set_aside(tmp_path: Path) -> None:
    for blobs in (LocalBlobs(tmp_path), RemoteBlobs(LocalStore(tmp_path))):
        digest = await blobs.put(FOX)
        await blobs.set_aside(digest)
        assert (tmp_path / "damaged" / digest).read_bytes() == FOX

        await blobs.delete([digest])

        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_other_files_and_blobs_in_wrong_folders_are_not_listed(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    digest = await blobs.put(FOX)
    for name in ("notes.txt", "aa/bb/notes.txt", f"{digest[:2]}/notes.txt", f"aa/bb/{digest}", f"tmp/{digest}"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no blob")
    blobs.path(digest).with_name("f" * 64).mkdir()

    for store in (blobs, RemoteBlobs(LocalStore(tmp_path))):
        assert await listed(store) == {digest: len(FOX)}
