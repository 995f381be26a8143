"""Tagging runs, presets, and jobs with what they produce."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Unpack

import msgspec

from contracts.commands.jobs import JobResult
from contracts.commands.tagging import TaggingRunResult
from contracts.events.jobs import Artifact
from contracts.queries.jobs import SampleView
from contracts.queries.presets import PresetView
from loratory.api.base import (
    LONG_POLL_SECONDS,
    POLL_SECONDS,
    Api,
    PointInTime,
    SyncApi,
    path,
    poll,
    sync,
    sync_iterator,
    wait_limit,
)
from loratory.download import download
from loratory.http import Items
from loratory.live import watch_frames
from loratory.responses import Frame, Job, TaggerModel, TaggingRun, TrainingOptions

TERMINAL_EVENTS = frozenset({"job.succeeded", "job.failed", "job.cancelled"})


class WorkApi(Api):
    async def tag(
        self, dataset: str, model: str | None = None, *, only_new: bool = False, filter: str | None = None
    ) -> TaggingRun:
        """Start a tagging run on all images, or on those that a filter selects, and return it without waiting.

        Without a model, the one that was installed is used: it is refused if there are several, or none but the
        built-in one.
        """
        body = {"dataset": dataset, "model": model, "only_new": only_new, "filter": filter}
        result = await self._http.post(path("tagging", "runs"), TaggingRunResult, lambda: {"json": body})
        return await self.tagging_run(result.id)

    async def tagging_models(self) -> tuple[TaggerModel, ...]:
        """Those that the connected taggers can load."""
        return (await self._http.get(path("tagging", "models"), Items[TaggerModel])).items

    async def tagging_run(self, run: str) -> TaggingRun:
        return await self._http.get(path("tagging", "runs", run), TaggingRun)

    async def wait_tagging(
        self, run: str, *, timeout: float | None = None, on_progress: Callable[[TaggingRun], None] = lambda _run: None
    ) -> TaggingRun:
        """Wait until it has ended; WaitTimeout after `timeout` seconds. `on_progress` is called after each poll."""
        async with wait_limit(f"the tagging run {run}", timeout):
            return await poll(lambda: self.tagging_run(run), lambda now: now.ended, on_progress)

    async def presets(self) -> list[PresetView]:
        return [view async for view in self._http.items(path("presets"), Items[PresetView])]

    async def preset(self, name: str) -> PresetView:
        return await self._http.get(path("presets", name), PresetView)

    async def train(self, dataset: str, **options: Unpack[TrainingOptions]) -> Job:
        """Create and start a training on the current state of a data set."""
        body = msgspec.to_builtins({"dataset": dataset, **options})
        result = await self._http.post(path("training", "single"), JobResult, lambda: {"json": body})
        return await self.job(result.id)

    async def jobs(self, *, status: str | None = None, dataset: str | None = None) -> list[Job]:
        """Newest first."""
        return [job async for job in self._http.items(path("jobs"), Items[Job], status=status, dataset=dataset)]

    async def job(self, job: str, **at: Unpack[PointInTime]) -> Job:
        """With a log sequence or a time: its state at that point."""
        return await self._http.get(path("jobs", job), Job, **at)

    async def start_job(self, job: str) -> JobResult:
        return await self._http.post(path("jobs", job, "start"), JobResult)

    async def cancel_job(self, job: str) -> JobResult:
        return await self._http.post(path("jobs", job, "cancel"), JobResult)

    async def set_job_description(self, job: str, description: str) -> JobResult:
        """Set the description shown on the job's page; it is recorded in the event log."""
        return await self._http.patch(path("jobs", job), JobResult, lambda: {"json": {"description": description}})

    async def wait_job(self, job: str, *, timeout: float | None = None) -> Job:
        """Wait until it has ended; WaitTimeout after `timeout` seconds."""
        async with wait_limit(f"the job {job}", timeout):
            now = await self.job(job)
            while not now.ended:
                now = await self._long_poll(job)
        return now

    async def _long_poll(self, job: str) -> Job:
        started = asyncio.get_running_loop().time()
        found = await self._http.get(path("jobs", job), Job, wait=LONG_POLL_SECONDS, until="terminal")
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

    def watch(self, *, job: str | None = None, after: str = "") -> AsyncGenerator[Frame, None]:
        """Events and progress of everything, or of one job; never ends by itself."""
        return watch_frames(self._http.url, self._http.headers, job=job, after=after, tls=self._http.tls)

    async def samples(self, job: str) -> list[SampleView]:
        """Images rendered during the training, oldest first; step 0 is the base model without the LoRA."""
        return [view async for view in self._http.items(path("jobs", job, "samples"), Items[SampleView])]

    async def sample(self, job: str, step: int, index: int) -> bytes:
        """One sample as PNG."""
        return await self._http.content(path("jobs", job, "samples", str(step), str(index)))

    async def artifacts(self, job: str) -> tuple[Artifact, ...]:
        return (await self._http.get(path("jobs", job, "artifacts"), Items[Artifact])).items

    async def download(self, job: str, artifact: Artifact, to: Path) -> Path:
        """`to`: a file, or an existing folder. Resumes partial downloads and verifies the sha256."""
        target = to / Path(artifact.name).name if to.is_dir() else to
        return await download(self._http, path("jobs", job, "artifacts", artifact.name), artifact, target)


class SyncWorkApi(SyncApi):
    tag = sync(WorkApi.tag)
    tagging_models = sync(WorkApi.tagging_models)
    tagging_run = sync(WorkApi.tagging_run)
    wait_tagging = sync(WorkApi.wait_tagging)
    presets = sync(WorkApi.presets)
    preset = sync(WorkApi.preset)
    train = sync(WorkApi.train)
    jobs = sync(WorkApi.jobs)
    job = sync(WorkApi.job)
    start_job = sync(WorkApi.start_job)
    cancel_job = sync(WorkApi.cancel_job)
    set_job_description = sync(WorkApi.set_job_description)
    wait_job = sync(WorkApi.wait_job)
    samples = sync(WorkApi.samples)
    sample = sync(WorkApi.sample)
    artifacts = sync(WorkApi.artifacts)
    download = sync(WorkApi.download)
    watch_job = sync_iterator(WorkApi.watch_job)
    watch = sync_iterator(WorkApi.watch)
