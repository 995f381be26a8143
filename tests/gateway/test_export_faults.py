"""Exports when pictures are missing, are erased meanwhile, or the client goes away; and their limits."""

import io
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from zipfile import BadZipFile, ZipFile

import httpx
import pytest
from structlog.testing import capture_logs

from contracts.errors import BlobMissing, Lost, NotFound
from contracts.ids import Digest, ImageId
from contracts.queries.base import Page
from contracts.queries.datasets import GetDataset, GetTextSettings, TextSettingsView
from contracts.queries.exports import ExportEntry, ReadExport
from contracts.queries.losses import GetBlob
from contracts.tag_style import DEFAULT_STYLE
from gateway.exports import plan
from gateway.limits import HttpLimits
from tests.gateway.conftest import Limits, World, eventually
from tests.gateway.fake_catalog import dataset
from tests.gateway.test_http import assert_problem

EXPORT = "/api/v1/datasets/d1/export"
PNG = b"\x89PNG\r\n\x1a\n"
LARGE = 8 << 20
"""More than sockets and buffers hold, so that a client which does not read stops the gateway."""
PAGE = 2
MAX_EXPORTS = 2

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def limits() -> Limits:
    return Limits(http=HttpLimits(exports=MAX_EXPORTS))


async def put_pictures(world: World, *sizes: int) -> list[ExportEntry]:
    """Pictures of these sizes, which the catalog lists in pages of two."""
    entries = [
        ExportEntry(
            ordinal=ordinal,
            image=ImageId(f"img_{ordinal}"),
            picture=await world.blobs.put(PNG + os.urandom(size)),
            width=1,
            height=1,
            template=1,
            text=2,
            name=f"{ordinal}.png",
            caption=f"caption {ordinal}",
        )
        for ordinal, size in enumerate(sizes)
    ]

    settings = TextSettingsView(
        dataset_id=dataset().id, dataset=dataset().name, trigger="", template=1, style=DEFAULT_STYLE, etag=1
    )

    def page(query: ReadExport) -> Page[ExportEntry]:
        start = int(query.cursor or 0)
        end = start + PAGE
        following = str(end) if end < len(entries) else None
        return Page(items=tuple(entries[start:end]), total=len(entries), next=following)

    world.catalog.query_results |= {GetDataset: dataset(), GetTextSettings: settings, ReadExport: page}
    return entries


@pytest.mark.slow
async def test_all_pages_are_exported(world: World) -> None:
    entries = await put_pictures(world, 10, LARGE, 0, 10, 10)
    response = await world.client.get(EXPORT, params={"format": "flat"})
    opened = ZipFile(io.BytesIO(response.content))
    assert opened.testzip() is None
    for entry in entries:
        assert opened.read(f"{entry.ordinal}.png") == await world.blobs.get(entry.picture)
        assert opened.read(f"{entry.ordinal}.txt").decode() == entry.caption


@pytest.mark.parametrize(("error", "status"), [(BlobMissing("it is missing"), 409), (Lost("it is lost"), 410)])
async def test_a_missing_picture_is_noticed_before_the_first_byte(world: World, error: Any, status: int) -> None:
    entries = await put_pictures(world, 10, 10, 10)
    await world.blobs.delete([entries[2].picture])
    world.catalog.query_results[GetBlob] = error
    problem = assert_problem(await world.client.get(EXPORT), status, error.code)
    assert problem["image"] == "img_2" and "img_2" in str(problem["detail"])
    manifest = await world.client.get(EXPORT, params={"format": "manifest"})  # which has no pictures
    assert len(manifest.text.splitlines()) == 3


async def test_an_image_erased_since_it_was_read_is_left_out_and_named(world: World) -> None:
    entries = await put_pictures(world, 10, 10)
    await world.blobs.delete([entries[0].picture])
    world.catalog.query_results[GetBlob] = NotFound("nothing names it")
    opened = ZipFile(io.BytesIO((await world.client.get(EXPORT, params={"format": "flat"})).content))
    assert opened.namelist() == ["1.png", "1.txt", "export.json"]
    assert [one["image"] for one in json.loads(opened.read("export.json"))["left_out"]] == ["img_0"]


@asynccontextmanager
async def started(world: World) -> AsyncIterator[AsyncIterator[bytes]]:
    """An export of which the client has read nothing yet."""
    async with world.client.stream("GET", EXPORT, params={"format": "flat"}) as response:
        yield response.aiter_raw()


async def test_an_image_erased_while_the_export_is_sent_is_left_out_and_named(world: World) -> None:
    entries = await put_pictures(world, LARGE, LARGE, 10)
    world.catalog.query_results[GetBlob] = NotFound("nothing names it")
    async with started(world) as chunks:
        await world.blobs.delete([entries[2].picture])
        opened = ZipFile(io.BytesIO(b"".join([chunk async for chunk in chunks])))
    assert opened.testzip() is None
    assert opened.namelist() == ["0.png", "0.txt", "1.png", "1.txt", "export.json"]
    summary = json.loads(opened.read("export.json"))
    assert (summary["images"], [one["image"] for one in summary["left_out"]]) == (2, ["img_2"])


async def test_a_picture_that_is_lost_while_the_export_is_sent_breaks_it_off(world: World) -> None:
    entries = await put_pictures(world, LARGE, LARGE, 10)
    world.catalog.query_results[GetBlob] = BlobMissing("it is missing")
    received = b""
    with capture_logs() as logs, pytest.raises(httpx.RemoteProtocolError):
        async with started(world) as chunks:
            await world.blobs.delete([entries[2].picture])
            async for chunk in chunks:
                received += chunk
    with pytest.raises(BadZipFile):
        ZipFile(io.BytesIO(received))
    (broken,) = [entry for entry in logs if entry["event"] == "export_broken"]
    assert "'img_2'" in broken["error"]


async def test_a_picture_that_is_cut_while_the_export_is_sent_breaks_it_off(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_pictures(world, LARGE, 10_000)
    stream = world.blobs.stream
    monkeypatch.setattr(world.blobs, "stream", lambda digest: stream(digest, 0, 5_000))
    with pytest.raises(httpx.RemoteProtocolError):
        await world.client.get(EXPORT, params={"format": "flat"})


async def is_accepted(world: World) -> bool:
    return (await world.client.get(EXPORT, params={"format": "manifest"})).status_code == 200


async def test_nothing_more_is_read_for_a_client_that_went_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = await put_pictures(world, *[LARGE] * 6)
    opened: list[Digest] = []
    stream = world.blobs.stream

    def noted(digest: Digest) -> AsyncGenerator[bytes, None]:
        opened.append(digest)
        return stream(digest)

    monkeypatch.setattr(world.blobs, "stream", noted)
    async with started(world):
        async with started(world):
            assert not await is_accepted(world)
        await eventually(lambda: is_accepted(world))  # the other one has ended
        assert 0 < len(opened) < 2 * len(entries)


async def test_more_exports_than_the_limit_are_refused(world: World) -> None:
    await put_pictures(world, *[LARGE] * 3)
    async with started(world), started(world):
        refused = await world.client.get(EXPORT)
        assert "2 exports are running" in str(assert_problem(refused, 503, "unavailable")["detail"])

    await eventually(lambda: is_accepted(world))  # what was cut off is counted no more


async def test_what_does_not_fit_in_memory_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await put_pictures(world, 10, 10)
    monkeypatch.setattr(plan, "MAX_PLAN_BYTES", 0)
    problem = assert_problem(await world.client.get(EXPORT), 413, "too-large")
    assert "each with a filter" in str(problem["detail"])
