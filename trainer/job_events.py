"""Records what the engine produced: its files become blobs, then the job's event names them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from contracts.events.jobs import JOB_WORK, Artifact, JobCheckpointed, JobPlanned, JobSampled, JobSucceeded
from contracts.ids import Digest
from contracts.wire.blobs.store import Blobs
from contracts.wire.workers.worker import Attempt
from trainer.adapter_metadata import safe_file_stem
from trainer.domain import JobState
from trainer.messages import Finished, Planned, Sampled, TensorFile

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
            )
        )

    async def checkpointed(self, step: int, path: Path) -> None:
        size = path.stat().st_size
        digest = await self.blobs.put(path)
        await self.attempt.report(JobCheckpointed(attempt=self.attempt.number, step=step, checkpoint=digest, size=size))
        _log.info("checkpoint_saved", step=step, bytes=size)

    async def sampled(self, sampled: Sampled) -> None:
        """Recorded once: after a resume the engine renders the samples of that step again."""
        name = sampled.step, sampled.index
        if name in self.job.samples or name in self._sampled:
            return
        self._sampled.add(name)
        picture = await self.blobs.put(Path(sampled.path))
        await self.attempt.report(
            JobSampled(
                attempt=self.attempt.number,
                step=sampled.step,
                index=sampled.index,
                picture=picture,
                seed=sampled.seed,
            )
        )

    async def succeeded(self, finished: Finished) -> None:
        stem = safe_file_stem(self.job.request.name)
        artifacts = (
            await self._artifact("kohya", f"{stem}.safetensors", finished.kohya),
            await self._artifact("diffusers", f"{stem}-diffusers.safetensors", finished.diffusers),
        )
        await self.attempt.report(JobSucceeded(attempt=self.attempt.number, step=finished.step, artifacts=artifacts))

    async def cancelled(self, step: int) -> None:
        await self.attempt.report(JOB_WORK.cancelled(attempt=self.attempt.number, step=step))

    async def _artifact(self, form: str, name: str, file: TensorFile) -> Artifact:
        path = Path(file.path)
        digest = await self.blobs.put(path)
        size = path.stat().st_size
        return Artifact(name=name, format=form, digest=digest, size=size, tensors=Digest(file.tensors))
