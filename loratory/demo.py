"""The demo: images, data set, tags, training, LoRA and a contact sheet of what was learnt, on this machine."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import LoratoryError, SetupError
from contracts.events.jobs import Artifact
from contracts.shipped_models import BUILT_IN_TAGGER
from contracts.wording import count
from loratory import demo_programs
from loratory.api.base import WaitTimeout, poll
from loratory.bind_address import api_key, find_free_port
from loratory.client import AsyncClient
from loratory.demo_programs import DrawnConcept, SheetInput
from loratory.download import sha256_of
from loratory.folders.result import ScanResult
from loratory.follow import ProgressWriter, WorkerWait, follow_job, follow_tagging, format_import, wait_until_started
from loratory.image_files import scan_folder
from loratory.responses import Job, TrainingOptions
from loratory.services import CORE_SERVICES
from loratory.stack import Stack

DRAWN_IMAGES = 12
WORKER_TIMEOUT_SECONDS = 60.0
MAX_SHEET_COLUMNS = 5
LORA_FILE_TIMEOUT_SECONDS = 15.0
MAX_LORA_FILES = 10_000
MAX_LISTED_TAGS = 6
MAX_NAME_CHARACTERS = 100
DEFAULT_PORT = 8000


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What one run of the demo does; the command line shows these texts."""

    data: Path = Path("~/loratory-demo")
    """The data folder."""
    images: Path | None = None
    """Your own images; without it, a dozen are drawn."""
    steps: int | None = None
    """Number of training steps."""
    seed: int = 0
    """Seed of the drawn images and of the training; each seed has its own data set."""
    preset: str = "demo"
    """The recipe, including the base model."""
    worker_timeout: float = WORKER_TIMEOUT_SECONDS
    """Seconds to wait for a tagger or trainer to connect."""


@dataclass(frozen=True)
class Demo:
    """One run of the demo."""

    options: DemoOptions
    environ: Mapping[str, str]
    writer: ProgressWriter

    async def run(self, *, port: int | None, serve: bool) -> int:
        """The exit code. SetupError, before anything is started, for a folder without images."""
        images, steps = self.options.images, self.options.steps
        scan = await asyncio.to_thread(scan_folder, images.expanduser()) if images else None
        if steps is not None and steps < 1:
            raise SetupError("--steps must be at least 1")
        completed = False
        try:
            port = _choose_port(port)
            async with Stack(self.options.data, environ=self.environ, port=port, print_line=self.writer.line) as stack:
                await stack.wait_ready(CORE_SERVICES)
                self.writer.line(f"the page is at {stack.address}")
                code = await stack.run(self._work(stack, scan))
                completed = code == 0
                if completed and serve:
                    self.writer.line(f"\nthe page is at {stack.address}; Ctrl-C stops Loratory")
                    await stack.watch()
                return code
        except asyncio.CancelledError:
            if not completed:
                raise
            return 0

    async def _work(self, stack: Stack, scan: ScanResult | None) -> int:
        concept = DrawnConcept()
        images = self.options.images
        name = f"demo {images.expanduser().resolve().name}" if images else self._with_seed("demo", " ")
        dataset = name[:MAX_NAME_CHARACTERS]
        if scan is None:
            folder = stack.data / self._with_seed("demo-pictures", "-")
            self.writer.line(f"drawing {DRAWN_IMAGES} images")
            concept = await demo_programs.draw(folder, self.environ, count=DRAWN_IMAGES, seed=self.options.seed)
            scan = await asyncio.to_thread(scan_folder, folder)
        async with AsyncClient(stack.address, api_key(self.environ)) as client:
            await self._import(client, dataset, scan)
            await self._tag(client, dataset, stack)
            return await self._train(client, dataset, stack, concept)

    def _with_seed(self, name: str, separator: str) -> str:
        """Each seed has its own data set and files; seed 0 has the bare name."""
        return f"{name}{separator}{self.options.seed}" if self.options.seed else name

    async def _import(self, client: AsyncClient, dataset: str, scan: ScanResult) -> None:
        await client.ensure_dataset(dataset)
        result = await client.import_scanned(dataset, scan)
        for line in format_import(result):
            self.writer.line(line)
        if not result.of("added") and not result.of("existing"):
            raise LoratoryError("all images were skipped, so there is nothing to train on")

    async def _tag(self, client: AsyncClient, dataset: str, stack: Stack) -> None:
        run = await client.tag(dataset, BUILT_IN_TAGGER)
        run = await _explain_timeout(stack, "tagger", follow_tagging(client, run.id, self._worker_wait(), self.writer))
        if run.status != "completed":
            raise LoratoryError(f"the tagging run {run.status}: {run.error or 'no reason given'}")
        tags = (await client.tags(dataset))[:MAX_LISTED_TAGS]
        listed = ", ".join(f"{tag.tag} ({tag.images})" for tag in tags)
        self.writer.line(f"{count(run.done, 'image')} tagged by {run.model}: {listed or 'no tag above the threshold'}")

    async def _train(self, client: AsyncClient, dataset: str, stack: Stack, concept: DrawnConcept) -> int:
        changes: dict[str, object] = {"seed": self.options.seed}
        if self.options.steps is not None:
            changes["length"] = {"type": "steps", "count": self.options.steps}
        if concept.prompts:
            changes["sampling.prompts"] = concept.prompts
        training = TrainingOptions(preset=self.options.preset, name=dataset, trigger=concept.concept, changes=changes)
        job = await client.train(dataset, **training)
        await _explain_timeout(stack, "trainer", wait_until_started(client, job.id, self._worker_wait()))
        code = await follow_job(client, job.id, self.writer)
        if code == 0:
            job = await client.job(job.id)
            lora = await self._print_lora_files(job, stack)
            sheet = stack.data / f"{self._with_seed('sheet', '-')}.png"
            await self._compare(client, job, concept, sheet)
            if lora:
                await asyncio.to_thread(shutil.copyfile, sheet, lora.with_suffix(".png"))
        return code

    async def _print_lora_files(self, job: Job, stack: Stack) -> Path | None:
        """Print where the LoRA files are; returns the kohya file, which other programs load."""
        files = [(artifact, await self._wait_for_file(artifact, stack.data / "loras")) for artifact in job.artifacts]
        for artifact, path in files:
            location = path or f"{stack.address}/api/v1/jobs/{job.id}/artifacts/{artifact.name}"
            self.writer.line(f"LoRA ({artifact.format}): {location}\n  sha256 {artifact.digest}")
        return next((path for artifact, path in files if artifact.format == "kohya"), None)

    async def _compare(self, client: AsyncClient, job: Job, concept: DrawnConcept, sheet: Path) -> None:
        """Write the contact sheet; the score goes to the job's page."""
        self.writer.line("comparing samples before and after the training")
        with tempfile.TemporaryDirectory(prefix="loratory-sheet-") as folder:
            sheet_input = await _collect_images(client, job, concept, Path(folder))
            score = await demo_programs.write_contact_sheet(sheet, sheet_input, self.environ)
        if score.sentence:
            await client.set_job_description(job.id, score.sentence)
            self.writer.line(score.sentence)
        self.writer.line(f"sheet: {sheet}")

    async def _wait_for_file(self, artifact: Artifact, loras: Path) -> Path | None:
        """The file of an artifact. The trainer writes it just after it has reported success."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LORA_FILE_TIMEOUT_SECONDS):
                return await poll(lambda: asyncio.to_thread(_find_file, artifact, loras), bool, lambda _none: None)
        return None

    def _worker_wait(self) -> WorkerWait:
        return WorkerWait(self.options.worker_timeout, self.writer.line)


async def _collect_images(client: AsyncClient, job: Job, concept: DrawnConcept, folder: Path) -> SheetInput:
    """Download training images, and samples of step 0 (the base model) and of the last step, into the folder."""

    async def save(name: str, content: Coroutine[Any, Any, bytes]) -> str:
        path = folder / name
        path.write_bytes(await content)
        return str(path)

    samples = await client.samples(job.id)
    by_step = {
        step: [sample for sample in samples if sample.step == step][:MAX_SHEET_COLUMNS] for step in (0, job.step)
    }
    files = {
        step: [await save(f"{step}-{one.index}.png", client.sample(job.id, step, one.index)) for one in of_step]
        for step, of_step in by_step.items()
    }
    images = await client.images(job.dataset_id)
    some = images[: len(files[0])]
    shown = [await save(f"shown-{number}.png", client.picture(image.id)) for number, image in enumerate(some)]
    return SheetInput(
        training_images=shown,
        dataset_size=len(images),
        before=files[0],
        after=files[job.step],
        prompts=[sample.prompt for sample in by_step[job.step]],
        concept=concept.concept,
        seconds=(job.ended_at - job.started_at).total_seconds() if job.ended_at and job.started_at else None,
    )


async def _explain_timeout(stack: Stack, service: str, waiting: Coroutine[Any, Any, Any]) -> Any:
    """The result of `waiting`; on a timeout an error with the reason why the service is not ready."""
    try:
        return await waiting
    except WaitTimeout as error:
        raise LoratoryError(f"{error}; {stack.why_not_ready(service) or f'the {service} is ready'}") from error


def _choose_port(requested: int | None) -> int:
    """The requested port, else 8000 if it is free, else any free one."""
    if requested is not None:
        return requested
    try:
        return find_free_port("127.0.0.1", DEFAULT_PORT)
    except SetupError:
        return 0


def _find_file(artifact: Artifact, loras: Path) -> Path | None:
    """The file under the LoRA folder that has exactly these bytes."""
    for path in sorted(loras.rglob("*.safetensors"))[:MAX_LORA_FILES]:
        if path.stat().st_size == artifact.size and sha256_of(path) == artifact.digest:
            return path
    return None
