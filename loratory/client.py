"""The Python client: the public API, typed. `loratory.Client` is the same without `await`.

Every method may raise a LoratoryError of `contracts.errors`: by the problem document's `code` where the server refused,
Unavailable where none answered for `patience` seconds.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any, BinaryIO, Self, Unpack
from urllib.parse import quote

import msgspec

from contracts.audit import AuditHead, AuditReport
from contracts.commands import ImportedFile, Receipt
from contracts.errors import LoratoryError, NotFound
from contracts.events import Artifact
from contracts.queries import DatasetView, ImageView, Page, PresetView, SampleView, TagCount
from loratory.answers import (
    Artifacts,
    Erased,
    Frame,
    Imported,
    ImportedFiles,
    Job,
    TaggingRun,
    Training,
)
from loratory.download import download
from loratory.http import Http
from loratory.live import frames
from loratory.pictures import Found, Picture, batches, found_among, found_in
from loratory.story import Story, Time

P = "/api/v1"
LOCAL = "http://127.0.0.1:8000"
POLL = 0.5
PAGE = 500
AUDIT_SECONDS = 120.0


class TookTooLong(LoratoryError):
    """It was not over in the time given."""

    code = "timeout"


class AsyncClient(Story):
    """`async with AsyncClient() as client:` … `url` of the gateway, `key` an API key where it asks for one."""

    def __init__(
        self, url: str = LOCAL, key: str | None = None, *, patience: float = 20.0, at_first: float | None = None
    ) -> None:
        """`patience` in seconds for a server that is away or not ready; `at_first` until it has answered once."""
        super().__init__(Http(url, key, patience=patience, at_first=at_first))

    @property
    def url(self) -> str:
        return self._http.url

    async def close(self) -> None:
        await self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def version(self) -> dict[str, Any]:
        return await self._http.get(f"{P}/version", dict[str, Any])

    async def status(self) -> dict[str, Any]:
        """Workers, the log, counts."""
        return await self._http.get(f"{P}/status", dict[str, Any])

    # --- data sets

    async def datasets(self) -> list[DatasetView]:
        return [view async for view in self._all(f"{P}/datasets", DatasetView)]

    async def dataset(self, dataset: str, *, at_seq: int | None = None, at_time: Time | None = None) -> DatasetView:
        """By name or id; with a sequence of the log or a time as it was then."""
        return await self._http.get(f"{P}/datasets/{_part(dataset)}", DatasetView, at_seq=at_seq, at_time=at_time)

    async def create_dataset(self, name: str, description: str = "", *, key: str | None = None) -> Receipt:
        body = {"name": name, "description": description}
        return await self._http.post(f"{P}/datasets", Receipt, lambda: {"json": body}, key=key)

    async def ensure_dataset(self, name: str) -> DatasetView:
        """The data set of this name, made if there is none."""
        try:
            return await self.dataset(name)
        except NotFound:
            await self.create_dataset(name)
            return await self.dataset(name)

    async def images(self, dataset: str) -> list[ImageView]:
        return [view async for view in self._all(f"{P}/datasets/{_part(dataset)}/images", ImageView)]

    async def picture(self, image: str) -> bytes:
        """The image as it is trained on: upright, sRGB, 8 bits, without metadata."""
        return await self._http.content(f"{P}/images/{_part(image)}/file")

    async def image(self, image: str, *, at_seq: int | None = None, at_time: Time | None = None) -> ImageView:
        """With a sequence of the log or a time as it was then."""
        return await self._http.get(f"{P}/images/{_part(image)}", ImageView, at_seq=at_seq, at_time=at_time)

    async def tags(self, dataset: str) -> list[TagCount]:
        return [view async for view in self._all(f"{P}/datasets/{_part(dataset)}/tags", TagCount)]

    async def import_folder(
        self, dataset: str, folder: Path, *, told: Callable[[int, int], None] | None = None
    ) -> Imported:
        """All pictures under a folder, with the captions beside them (`.txt`, `.caption`); `told` hears done, total."""
        return await self.import_found(dataset, await asyncio.to_thread(found_in, folder), told=told)

    async def import_files(
        self, dataset: str, files: Sequence[Path], *, told: Callable[[int, int], None] | None = None
    ) -> Imported:
        return await self.import_found(dataset, await asyncio.to_thread(found_among, files), told=told)

    async def import_found(
        self, dataset: str, found: Found, *, told: Callable[[int, int], None] | None = None
    ) -> Imported:
        """What `loratory.pictures` found."""
        files: list[ImportedFile] = []
        unread = list(found.unread)
        for batch in batches(found.pictures):
            files += await self._upload(dataset, batch, unread)
            if told:
                told(len(files), len(found.pictures))
        return Imported(
            files=tuple(files),
            captions=sum(picture.caption is not None for picture in found.pictures),
            others=found.others,
            outside=found.outside,
            unread=tuple(unread),
        )

    async def _upload(
        self, dataset: str, batch: list[Picture], unread: list[tuple[str, str]]
    ) -> Sequence[ImportedFile]:
        """One request. What cannot be opened is added to `unread`, and the rest goes on."""
        parts: list[tuple[str, tuple[str, BinaryIO]]] = []
        captions: dict[str, str] = {}
        with ExitStack() as opened:
            for picture in batch:
                try:
                    parts.append(("files", (picture.name, opened.enter_context(picture.path.open("rb")))))
                except OSError as error:
                    unread.append((picture.name, error.strerror or "it cannot be read"))
                    continue
                if picture.caption is not None:
                    captions[picture.name] = picture.caption
            if not parts:
                return ()

            def body() -> dict[str, Any]:
                for _, (_, source) in parts:
                    source.seek(0)
                more = {"captions": msgspec.json.encode(captions).decode()} if captions else {}
                return {"files": parts, "data": more}

            path = f"{P}/datasets/{_part(dataset)}/images"
            return (await self._http.post(path, ImportedFiles, body)).items

    async def erase_image(self, image: str, *, key: str | None = None) -> Erased:
        """Destroy its bytes, file name and caption wherever they are. It cannot be taken back."""
        return await self._http.post(f"{P}/images/{_part(image)}/erase", Erased, key=key)

    async def erase_dataset(self, dataset: str, *, key: str | None = None) -> Erased:
        """The same for all images it ever had; by name or id."""
        return await self._http.post(f"{P}/datasets/{_part(dataset)}/erase", Erased, key=key)

    # --- tagging

    async def tag(self, dataset: str, model: str = "demo", *, only_new: bool = False) -> TaggingRun:
        """Have a model look at the pictures; it is under way when this returns."""
        body = {"dataset": dataset, "model": model, "only_new": only_new}
        receipt = await self._http.post(f"{P}/tagging/runs", Receipt, lambda: {"json": body})
        return await self.tagging_run(receipt.id)

    async def tagging_run(self, run: str) -> TaggingRun:
        return await self._http.get(f"{P}/tagging/runs/{_part(run)}", TaggingRun)

    async def wait_tagging(
        self, run: str, *, timeout: float | None = None, told: Callable[[TaggingRun], None] | None = None
    ) -> TaggingRun:
        """Until it has ended; TookTooLong after `timeout` seconds. `told` hears each look at it."""
        try:
            async with asyncio.timeout(timeout):
                while not (now := await self.tagging_run(run)).ended:
                    if told:
                        told(now)
                    await asyncio.sleep(POLL)
        except TimeoutError as error:
            raise TookTooLong(f"the tagging run {run} is not over after {timeout:g} s") from error
        return now

    # --- presets and jobs

    async def presets(self) -> list[PresetView]:
        return [view async for view in self._all(f"{P}/presets", PresetView)]

    async def preset(self, name: str) -> PresetView:
        return await self._http.get(f"{P}/presets/{_part(name)}", PresetView)

    async def train(self, dataset: str, **asked: Unpack[Training]) -> Job:
        """Ask for a training of this data set as it is now, and start it."""
        body = msgspec.to_builtins({"dataset": dataset, **asked})
        receipt = await self._http.post(f"{P}/training/single", Receipt, lambda: {"json": body})
        return await self.job(receipt.id)

    async def jobs(self, *, status: str | None = None, dataset: str | None = None) -> list[Job]:
        """Newest first."""
        return [job async for job in self._all(f"{P}/jobs", Job, status=status, dataset=dataset)]

    async def job(self, job: str, *, at_seq: int | None = None, at_time: Time | None = None) -> Job:
        """With a sequence of the log or a time as it was then."""
        return await self._http.get(f"{P}/jobs/{_part(job)}", Job, at_seq=at_seq, at_time=at_time)

    async def start_job(self, job: str) -> Receipt:
        return await self._http.post(f"{P}/jobs/{_part(job)}/start", Receipt)

    async def cancel_job(self, job: str) -> Receipt:
        return await self._http.post(f"{P}/jobs/{_part(job)}/cancel", Receipt)

    async def describe_job(self, job: str, description: str) -> Receipt:
        """Words about a job; they stand on its page and in the log."""
        return await self._http.patch(f"{P}/jobs/{_part(job)}", Receipt, lambda: {"json": {"description": description}})

    async def wait_job(self, job: str, *, timeout: float | None = None) -> Job:
        """Until it has ended; TookTooLong after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                now = await self.job(job)
                while not now.ended:
                    now = await self._long_look(job)
        except TimeoutError as error:
            raise TookTooLong(f"the job {job} is not over after {timeout:g} s") from error
        return now

    async def _long_look(self, job: str) -> Job:
        began = asyncio.get_running_loop().time()
        found = await self._http.get(f"{P}/jobs/{_part(job)}", Job, wait=20, until="terminal")
        if not found.ended and asyncio.get_running_loop().time() - began < POLL:
            await asyncio.sleep(POLL)  # the server does not wait for us, so we must not hurry it
        return found

    async def watch_job(self, job: str, *, after: str = "") -> AsyncGenerator[Frame, None]:
        """Its facts after the cursor and its progress, until the fact that ends it; nothing is told twice."""
        ends = {"job.succeeded", "job.failed", "job.cancelled"}
        async with aclosing(self.watch(job=job, after=after)) as told:
            async for frame in told:
                yield frame
                if frame.type in ends:
                    return

    async def watch(self, *, job: str | None = None, after: str = "") -> AsyncGenerator[Frame, None]:
        """Facts and progress of all, or of one job; for ever."""
        async with aclosing(frames(self._http.url, self._http.headers, job=job, after=after)) as told:
            async for frame in told:
                yield frame

    async def samples(self, job: str) -> list[SampleView]:
        """What was rendered while it was trained, oldest first; step 0 is the base alone."""
        return [view async for view in self._all(f"{P}/jobs/{_part(job)}/samples", SampleView)]

    async def sample(self, job: str, step: int, index: int) -> bytes:
        """One of them as PNG."""
        return await self._http.content(f"{P}/jobs/{_part(job)}/samples/{step}/{index}")

    async def artifacts(self, job: str) -> tuple[Artifact, ...]:
        return (await self._http.get(f"{P}/jobs/{_part(job)}/artifacts", Artifacts)).items

    async def download(self, job: str, artifact: Artifact, to: Path) -> Path:
        """`to`: a file, or a folder that is there. Goes on where it was cut off; the sha256 is checked."""
        target = to / Path(artifact.name).name if to.is_dir() else to
        return await download(self._http, f"{P}/jobs/{_part(job)}/artifacts/{_part(artifact.name)}", artifact, target)

    # --- the audit; what else reads the log is in `Story`

    async def audit_head(self) -> AuditHead:
        """Where the log ends now, signed; kept elsewhere, a witness for later."""
        return await self._http.get(f"{P}/audit/head", AuditHead)

    async def audit_verify(self, head: AuditHead | None = None) -> AuditReport:
        """What is wrong with the log, its archive, or with history up to a head that was kept."""
        body = {"json": msgspec.to_builtins({"head": head}), "timeout": AUDIT_SECONDS}
        return await self._http.post(f"{P}/audit/verify", AuditReport, lambda: body)

    async def _all(self, path: str, kind: Any, **query: object) -> AsyncIterator[Any]:
        cursor: str | None = None
        while True:
            page = await self._http.get(path, Page[kind], cursor=cursor, limit=PAGE, **query)
            for item in page.items:
                yield item
            if page.next is None:
                return
            cursor = page.next


def _part(text: str) -> str:
    """One segment of a path."""
    return quote(text, safe="")
