"""The async Python client: the public API, typed. `loratory.Client` is its synchronous counterpart.

Every method may raise a LoratoryError of `contracts.errors`: the one named by the problem document's `code`, or
Unavailable if no server responded for `retry_timeout` seconds.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any, BinaryIO, Self, Unpack
from urllib.parse import quote

import msgspec

from contracts.audit import AuditHead, AuditReport
from contracts.commands import DatasetResult, ImportedFile, JobResult, TaggingRunResult
from contracts.errors import LoratoryError, NotFound
from contracts.events import Artifact
from contracts.queries import DatasetView, ImageView, Page, PresetView, SampleView, TagCount
from loratory.download import download
from loratory.event_log import EventLogApi, Timestamp
from loratory.http import Http
from loratory.image_files import ImageFile, ScanResult, batches, scan_files, scan_folder
from loratory.live import watch_frames
from loratory.responses import (
    Artifacts,
    ErasureResult,
    Frame,
    ImportedFiles,
    ImportSummary,
    Job,
    TaggingRun,
    TrainingOptions,
)

API = "/api/v1"
DEFAULT_URL = "http://127.0.0.1:8000"
POLL_SECONDS = 0.5
LONG_POLL_SECONDS = 20
PAGE_SIZE = 500
AUDIT_TIMEOUT_SECONDS = 120.0
TERMINAL_EVENTS = frozenset({"job.succeeded", "job.failed", "job.cancelled"})


class WaitTimeout(LoratoryError):
    """It did not end within the timeout."""

    code = "timeout"


class AsyncClient(EventLogApi):
    """`async with AsyncClient() as client:` … `url` of the gateway; `key`: API key, if it needs one."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: str | None = None,
        *,
        retry_timeout: float = 20.0,
        initial_retry_timeout: float | None = None,
    ) -> None:
        """Seconds to retry while the server is unreachable or not ready; `initial_…` before its first response."""
        super().__init__(Http(url, key, retry_timeout=retry_timeout, initial_retry_timeout=initial_retry_timeout))

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
        return await self._http.get(f"{API}/version", dict[str, Any])

    async def status(self) -> dict[str, Any]:
        """Workers, log position and counts."""
        return await self._http.get(f"{API}/status", dict[str, Any])

    # --- data sets

    async def datasets(self) -> list[DatasetView]:
        return [view async for view in self._all(f"{API}/datasets", DatasetView)]

    async def dataset(
        self, dataset: str, *, at_seq: int | None = None, at_time: Timestamp | None = None
    ) -> DatasetView:
        """By name or id; with a log sequence or a time: its state at that point."""
        return await self._http.get(f"{API}/datasets/{_quote(dataset)}", DatasetView, at_seq=at_seq, at_time=at_time)

    async def create_dataset(self, name: str, description: str = "", *, key: str | None = None) -> DatasetResult:
        body = {"name": name, "description": description}
        return await self._http.post(f"{API}/datasets", DatasetResult, lambda: {"json": body}, key=key)

    async def ensure_dataset(self, name: str) -> DatasetView:
        """The data set with this name, created if it does not exist."""
        try:
            return await self.dataset(name)
        except NotFound:
            await self.create_dataset(name)
            return await self.dataset(name)

    async def images(self, dataset: str) -> list[ImageView]:
        return [view async for view in self._all(f"{API}/datasets/{_quote(dataset)}/images", ImageView)]

    async def picture(self, image: str) -> bytes:
        """The image as used for training: upright, sRGB, 8 bits, without metadata."""
        return await self._http.content(f"{API}/images/{_quote(image)}/file")

    async def image(self, image: str, *, at_seq: int | None = None, at_time: Timestamp | None = None) -> ImageView:
        """With a log sequence or a time: its state at that point."""
        return await self._http.get(f"{API}/images/{_quote(image)}", ImageView, at_seq=at_seq, at_time=at_time)

    async def tags(self, dataset: str) -> list[TagCount]:
        return [view async for view in self._all(f"{API}/datasets/{_quote(dataset)}/tags", TagCount)]

    async def import_folder(
        self, dataset: str, folder: Path, *, on_progress: Callable[[int, int], None] | None = None
    ) -> ImportSummary:
        """All images under a folder, with captions from `.txt` and `.caption` files; `on_progress(done, total)`."""
        return await self.import_scanned(dataset, await asyncio.to_thread(scan_folder, folder), on_progress=on_progress)

    async def import_files(
        self, dataset: str, files: Sequence[Path], *, on_progress: Callable[[int, int], None] | None = None
    ) -> ImportSummary:
        return await self.import_scanned(dataset, await asyncio.to_thread(scan_files, files), on_progress=on_progress)

    async def import_scanned(
        self, dataset: str, found: ScanResult, *, on_progress: Callable[[int, int], None] | None = None
    ) -> ImportSummary:
        """Files found by `loratory.image_files`."""
        files: list[ImportedFile] = []
        unreadable = list(found.unreadable)
        for batch in batches(found.images):
            files += await self._upload(dataset, batch, unreadable)
            if on_progress:
                on_progress(len(files), len(found.images))
        return ImportSummary(
            files=tuple(files),
            captions=sum(image.caption is not None for image in found.images),
            other_files=found.other_files,
            outside_links=found.outside_links,
            unreadable=tuple(unreadable),
        )

    async def _upload(
        self, dataset: str, batch: list[ImageFile], unreadable: list[tuple[str, str]]
    ) -> Sequence[ImportedFile]:
        """One request. Files that cannot be opened are added to `unreadable` and skipped."""
        parts: list[tuple[str, tuple[str, BinaryIO]]] = []
        captions: dict[str, str] = {}
        with ExitStack() as opened:
            for image in batch:
                try:
                    parts.append(("files", (image.name, opened.enter_context(image.path.open("rb")))))
                except OSError as error:
                    unreadable.append((image.name, error.strerror or "it cannot be read"))
                    continue
                if image.caption is not None:
                    captions[image.name] = image.caption
            if not parts:
                return ()

            def body() -> dict[str, Any]:
                for _, (_, source) in parts:
                    source.seek(0)
                form = {"captions": msgspec.json.encode(captions).decode()} if captions else {}
                return {"files": parts, "data": form}

            path = f"{API}/datasets/{_quote(dataset)}/images"
            return (await self._http.post(path, ImportedFiles, body)).items

    async def erase_image(self, image: str, *, key: str | None = None) -> ErasureResult:
        """Permanently erase its bytes, file name and caption everywhere. Irreversible."""
        return await self._http.post(f"{API}/images/{_quote(image)}/erase", ErasureResult, key=key)

    async def erase_dataset(self, dataset: str, *, key: str | None = None) -> ErasureResult:
        """Permanently erase all images a data set ever contained; by name or id."""
        return await self._http.post(f"{API}/datasets/{_quote(dataset)}/erase", ErasureResult, key=key)

    # --- tagging

    async def tag(self, dataset: str, model: str = "demo", *, only_new: bool = False) -> TaggingRun:
        """Start a tagging run and return it without waiting."""
        body = {"dataset": dataset, "model": model, "only_new": only_new}
        result = await self._http.post(f"{API}/tagging/runs", TaggingRunResult, lambda: {"json": body})
        return await self.tagging_run(result.id)

    async def tagging_run(self, run: str) -> TaggingRun:
        return await self._http.get(f"{API}/tagging/runs/{_quote(run)}", TaggingRun)

    async def wait_tagging(
        self, run: str, *, timeout: float | None = None, on_progress: Callable[[TaggingRun], None] | None = None
    ) -> TaggingRun:
        """Wait until it has ended; WaitTimeout after `timeout` seconds. `on_progress` is called after each poll."""
        try:
            async with asyncio.timeout(timeout):
                while not (now := await self.tagging_run(run)).ended:
                    if on_progress:
                        on_progress(now)
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise WaitTimeout(f"the tagging run {run} has not ended after {timeout:g} s") from error
        return now

    # --- presets and jobs

    async def presets(self) -> list[PresetView]:
        return [view async for view in self._all(f"{API}/presets", PresetView)]

    async def preset(self, name: str) -> PresetView:
        return await self._http.get(f"{API}/presets/{_quote(name)}", PresetView)

    async def train(self, dataset: str, **options: Unpack[TrainingOptions]) -> Job:
        """Create and start a training on the current state of a data set."""
        body = msgspec.to_builtins({"dataset": dataset, **options})
        result = await self._http.post(f"{API}/training/single", JobResult, lambda: {"json": body})
        return await self.job(result.id)

    async def jobs(self, *, status: str | None = None, dataset: str | None = None) -> list[Job]:
        """Newest first."""
        return [job async for job in self._all(f"{API}/jobs", Job, status=status, dataset=dataset)]

    async def job(self, job: str, *, at_seq: int | None = None, at_time: Timestamp | None = None) -> Job:
        """With a log sequence or a time: its state at that point."""
        return await self._http.get(f"{API}/jobs/{_quote(job)}", Job, at_seq=at_seq, at_time=at_time)

    async def start_job(self, job: str) -> JobResult:
        return await self._http.post(f"{API}/jobs/{_quote(job)}/start", JobResult)

    async def cancel_job(self, job: str) -> JobResult:
        return await self._http.post(f"{API}/jobs/{_quote(job)}/cancel", JobResult)

    async def set_job_description(self, job: str, description: str) -> JobResult:
        """Set the description shown on the job's page; it is recorded in the event log."""
        return await self._http.patch(
            f"{API}/jobs/{_quote(job)}", JobResult, lambda: {"json": {"description": description}}
        )

    async def wait_job(self, job: str, *, timeout: float | None = None) -> Job:
        """Wait until it has ended; WaitTimeout after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                now = await self.job(job)
                while not now.ended:
                    now = await self._long_poll(job)
        except TimeoutError as error:
            raise WaitTimeout(f"the job {job} has not ended after {timeout:g} s") from error
        return now

    async def _long_poll(self, job: str) -> Job:
        started = asyncio.get_running_loop().time()
        found = await self._http.get(f"{API}/jobs/{_quote(job)}", Job, wait=LONG_POLL_SECONDS, until="terminal")
        if not found.ended and asyncio.get_running_loop().time() - started < POLL_SECONDS:
            await asyncio.sleep(POLL_SECONDS)  # the server did not wait: do not poll in a tight loop
        return found

    async def watch_job(self, job: str, *, after: str = "") -> AsyncGenerator[Frame, None]:
        """Its events after the cursor and its progress, up to the event that ends it; each event exactly once."""
        async with aclosing(self.watch(job=job, after=after)) as frames:
            async for frame in frames:
                yield frame
                if frame.type in TERMINAL_EVENTS:
                    return

    async def watch(self, *, job: str | None = None, after: str = "") -> AsyncGenerator[Frame, None]:
        """Events and progress of everything, or of one job; never ends by itself."""
        async with aclosing(watch_frames(self._http.url, self._http.headers, job=job, after=after)) as frames:
            async for frame in frames:
                yield frame

    async def samples(self, job: str) -> list[SampleView]:
        """Images rendered during the training, oldest first; step 0 is the base model without the LoRA."""
        return [view async for view in self._all(f"{API}/jobs/{_quote(job)}/samples", SampleView)]

    async def sample(self, job: str, step: int, index: int) -> bytes:
        """One sample as PNG."""
        return await self._http.content(f"{API}/jobs/{_quote(job)}/samples/{step}/{index}")

    async def artifacts(self, job: str) -> tuple[Artifact, ...]:
        return (await self._http.get(f"{API}/jobs/{_quote(job)}/artifacts", Artifacts)).items

    async def download(self, job: str, artifact: Artifact, to: Path) -> Path:
        """`to`: a file, or an existing folder. Resumes partial downloads and verifies the sha256."""
        target = to / Path(artifact.name).name if to.is_dir() else to
        return await download(
            self._http, f"{API}/jobs/{_quote(job)}/artifacts/{_quote(artifact.name)}", artifact, target
        )

    # --- audit; other methods that read the event log are in `EventLogApi`

    async def audit_head(self) -> AuditHead:
        """The signed head of the log; stored elsewhere, it proves later whether history was rewritten."""
        return await self._http.get(f"{API}/audit/head", AuditHead)

    async def audit_verify(self, head: AuditHead | None = None) -> AuditReport:
        """Verify the log against its archive, and against a stored head if given."""
        body = {"json": msgspec.to_builtins({"head": head}), "timeout": AUDIT_TIMEOUT_SECONDS}
        return await self._http.post(f"{API}/audit/verify", AuditReport, lambda: body)

    async def _all(self, path: str, kind: Any, **query: object) -> AsyncIterator[Any]:
        cursor: str | None = None
        while True:
            page = await self._http.get(path, Page[kind], cursor=cursor, limit=PAGE_SIZE, **query)
            for item in page.items:
                yield item
            if page.next is None:
                return
            cursor = page.next


def _quote(text: str) -> str:
    """Encode one path segment."""
    return quote(text, safe="")
