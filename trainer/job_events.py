"""Records what the engine produced: its files become blobs, then the job's event names them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from contracts.events.base import Event
from contracts.events.jobs import Artifact, JobCheckpointed, JobPlanned, JobSampled, JobSucceeded
from contracts.ids import Digest
from contracts.thread_cancellation import ThreadCancellation
from contracts.wire.blobs.store import Blobs
from contracts.wire.system.threads import finish_if_committed
from contracts.wire.workers.worker import Attempt
from trainer.adapter_metadata import safe_file_stem
from trainer.domain import JobState
from trainer.messages import Finished, Planned, Sampled, TensorFile

REPORT_SECONDS = 0.5
"""A cancellation while blobs are stored: if they are stored already, their event still gets this time to follow."""

_log = structlog.get_logger()


@dataclass
class JobEvents:
    """The events of one attempt. `job`: what was recorded before it."""

    blobs: Blobs
    attempt: Attempt
    job: JobState
    _sampled: set[tuple[int, int]] = field(default_factory=set)

    async def planned(self, planned: Planned, software: Mapping[str, str]) -> None:
        await self.attempt.report(
            JobPlanned(
                attempt=self.attempt.number,
                steps=planned.steps,
                epochs=planned.epochs,
                device=planned.device,
                precision=planned.precision,
                base=Digest(planned.base),
                software=dict(software),
                unused_masks=planned.unused_masks,
            )
        )

    async def checkpointed(self, step: int, path: Path) -> None:
        size = path.stat().st_size
        attempt = self.attempt.number
        await self._record(
            [path], lambda blobs: JobCheckpointed(attempt=attempt, step=step, checkpoint=blobs[0], size=size)
        )
        _log.info("checkpoint_saved", step=step, bytes=size)

    async def sampled(self, sampled: Sampled) -> None:
        """Recorded once: after a resume the engine renders the samples of that step again."""
        name = sampled.step, sampled.index
        if name in self.job.samples or name in self._sampled:
            return
        self._sampled.add(name)
        await self._record(
            [Path(sampled.path)],
            lambda blobs: JobSampled(
                attempt=self.attempt.number,
                step=sampled.step,
                index=sampled.index,
                picture=blobs[0],
                seed=sampled.seed,
            ),
        )

    async def succeeded(self, finished: Finished) -> None:
        stem, step = safe_file_stem(self.job.request.name), finished.step
        files = {"kohya": finished.kohya, "diffusers": finished.diffusers}
        names = {"kohya": f"{stem}.safetensors", "diffusers": f"{stem}-diffusers.safetensors"}

        def event(blobs: Sequence[Digest]) -> JobSucceeded:
            artifacts = tuple(
                _artifact(form, names[form], file, blob)
                for (form, file), blob in zip(files.items(), blobs, strict=True)
            )
            return JobSucceeded(attempt=self.attempt.number, step=step, artifacts=artifacts)

        await self._record([Path(file.path) for file in files.values()], event)

    async def _record(self, files: Sequence[Path], event: Callable[[Sequence[Digest]], Event]) -> None:
        """Store files and report their event: also when cancelled, either both happen or neither."""
        cancellation = ThreadCancellation()

        async def store_and_report() -> None:
            await self.attempt.report(event(await self.blobs.put_all(files, cancellation)))

        await finish_if_committed(store_and_report(), cancellation, timeout=REPORT_SECONDS)


def _artifact(form: str, name: str, file: TensorFile, blob: Digest) -> Artifact:
    size = Path(file.path).stat().st_size
    return Artifact(name=name, format=form, digest=blob, size=size, tensors=Digest(file.tensors))
