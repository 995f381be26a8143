"""The whole job once, on this machine: pictures, data set, tags, training, LoRA, and a sheet of what it has learnt."""

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from contracts.errors import LoratoryError, SetupError
from contracts.events import Artifact
from loratory import demo_world
from loratory.answers import Job, Training
from loratory.client import AsyncClient, TookTooLong
from loratory.demo_world import Compared, Subject
from loratory.following import Lines, Patience, until_ended, until_tagged, until_taken
from loratory.listening import free_port
from loratory.pictures import Found, found_in
from loratory.services import SERVE
from loratory.stack import Stack
from loratory.words import of_import

PRESET = "demo"
DRAWN = 12
PATIENCE = 60.0
"""Seconds the demo waits for a tagger or trainer to come."""
SHOWN = 5
"""Pictures of a row of the sheet at most."""
SHELVED_WITHIN = 15.0
MOST_LORAS = 10_000


class Demo:
    """`images`: a folder of pictures, none = drawn ones; `steps`: of the training, none = the preset's.

    `seed`: of the drawn pictures and the training. `preset`: how it is trained, and on which base. `patience`: seconds
    to wait for a tagger or trainer that is away.
    """

    def __init__(  # noqa: PLR0913 - each is an option of `loratory demo`
        self,
        data: Path,
        environ: Mapping[str, str],
        lines: Lines,
        *,
        images: Path | None,
        steps: int | None,
        seed: int = 0,
        preset: str = PRESET,
        patience: float = PATIENCE,
    ) -> None:
        self._data = data.expanduser().absolute()
        # Models this small gain nothing from a second thread, and lose where cores are shared: 36 s instead of 124.
        self._environ = {"OMP_NUM_THREADS": "1"} | dict(environ)
        self._lines = lines
        self._images = images.expanduser() if images else None
        self._steps = steps
        self._seed = seed
        self._preset = preset
        self._seconds = patience

    async def run(self, *, port: int | None, serve: bool) -> int:
        """The exit code. SetupError before anything is started for a folder that is none or holds no pictures."""
        found = await asyncio.to_thread(found_in, self._images) if self._images else None
        if self._steps is not None and self._steps < 1:
            raise SetupError("--steps must be at least 1")
        made = False
        try:
            async with Stack(self._data, environ=self._environ, port=_port(port), say=self._lines.say) as stack:
                await stack.wait_ready(SERVE)
                self._lines.say(f"the page is at {stack.address}")
                code = await _beside(stack, self._work(stack, found))
                made = code == 0
                if made and serve:
                    self._lines.say(f"\nthe page is at {stack.address}; Ctrl-C ends it")
                    await stack.watch()
                return code
        except asyncio.CancelledError:
            if not made:
                raise
            return 0

    async def _work(self, stack: Stack, found: Found | None) -> int:
        subject = Subject()
        dataset = f"demo {self._images.resolve().name}"[:100] if self._images else self._named("demo", " ")
        if found is None:
            folder = self._data / self._named("demo-pictures", "-")
            self._lines.say(f"drawing {DRAWN} pictures")
            subject = await demo_world.draw(folder, self._environ, count=DRAWN, seed=self._seed)
            found = await asyncio.to_thread(found_in, folder)
        async with AsyncClient(stack.address, _key(self._environ)) as client:
            await self._import(client, dataset, found)
            await self._tag(client, dataset, stack)
            return await self._train(client, dataset, stack, subject)

    def _named(self, name: str, between: str) -> str:
        """Another seed is another data set."""
        return f"{name}{between}{self._seed}" if self._seed else name

    async def _import(self, client: AsyncClient, dataset: str, found: Found) -> None:
        await client.ensure_dataset(dataset)
        imported = await client.import_found(dataset, found)
        for line in of_import(imported):
            self._lines.say(line)
        if not imported.of("added") and not imported.of("existing"):
            raise LoratoryError("none of the pictures was taken, so there is nothing to train on")

    async def _tag(self, client: AsyncClient, dataset: str, stack: Stack) -> None:
        run = await client.tag(dataset)
        run = await _or_why(stack, "tagger", until_tagged(client, run.id, self._patience(), self._lines))
        if run.status != "completed":
            raise LoratoryError(f"the tagging run {run.status}: {run.error or 'no reason given'}")
        tags = await client.tags(dataset)
        named = ", ".join(f"{tag.tag} ({tag.images})" for tag in tags[:6])
        self._lines.say(f"{run.done} pictures tagged by {run.model}: {named or 'no tag above the threshold'}")

    async def _train(self, client: AsyncClient, dataset: str, stack: Stack, subject: Subject) -> int:
        changes: dict[str, object] = {"seed": self._seed}
        if self._steps is not None:
            changes["length"] = {"type": "steps", "count": self._steps}
        if subject.prompts:
            changes["sampling.prompts"] = subject.prompts
        asked = Training(preset=self._preset, name=dataset, trigger=subject.concept, changes=changes)
        job = await client.train(dataset, **asked)
        await _or_why(stack, "trainer", until_taken(client, job.id, self._patience()))
        code = await until_ended(client, job.id, self._lines)
        if code == 0:
            job = await client.job(job.id)
            beside = await self._show(job, stack)
            await self._compare(client, job, subject, beside)
        return code

    async def _show(self, job: Job, stack: Stack) -> Path | None:
        """Say where the LoRA lies; the file other programs take first."""
        lying = [(artifact, await self._lying(artifact, stack.data / "loras")) for artifact in job.artifacts]
        for artifact, path in lying:
            place = path or f"{stack.address}/api/v1/jobs/{job.id}/artifacts/{artifact.name}"
            self._lines.say(f"LoRA ({artifact.format}): {place}\n  sha256 {artifact.digest}")
        return next((path for artifact, path in lying if artifact.format == "kohya"), None)

    async def _compare(self, client: AsyncClient, job: Job, subject: Subject, lora: Path | None) -> None:
        """Lay the sheet into the data folder and beside the LoRA; what a judge says goes to the job's page."""
        self._lines.say("comparing what was drawn before and after")
        sheet = self._data / f"{self._named('sheet', '-')}.png"
        with tempfile.TemporaryDirectory(prefix="loratory-sheet-") as folder:
            compared = await _gathered(client, job, subject, Path(folder))
            judged = await demo_world.lay_sheet(sheet, compared, self._environ)
        if lora:
            await asyncio.to_thread(shutil.copyfile, sheet, lora.with_suffix(".png"))
        if judged.sentence:
            await client.describe_job(job.id, judged.sentence)
            self._lines.say(judged.sentence)
        self._lines.say(f"sheet: {sheet}")

    async def _lying(self, artifact: Artifact, loras: Path) -> Path | None:
        """Its file. The trainer puts it there just after it has told of its success."""
        until = asyncio.get_running_loop().time() + SHELVED_WITHIN
        while asyncio.get_running_loop().time() < until:
            if path := await asyncio.to_thread(_file_of, artifact, loras):
                return path
            await asyncio.sleep(0.1)
        return None

    def _patience(self) -> Patience:
        return Patience(self._seconds, self._lines.say)


async def _gathered(client: AsyncClient, job: Job, subject: Subject, folder: Path) -> Compared:
    """Pictures of the data set, samples of the first round (the base alone) and of the last, as files in the folder."""

    async def kept(name: str, content: Coroutine[Any, Any, bytes]) -> str:
        path = folder / name
        path.write_bytes(await content)
        return str(path)

    samples = await client.samples(job.id)
    rounds = {step: [one for one in samples if one.step == step][:SHOWN] for step in (0, job.step)}
    drawn = {
        step: [await kept(f"{step}-{one.index}.png", client.sample(job.id, step, one.index)) for one in taken]
        for step, taken in rounds.items()
    }
    images = await client.images(job.dataset_id)
    some = images[: len(drawn[0])]
    shown = [await kept(f"shown-{place}.png", client.picture(one.id)) for place, one in enumerate(some)]
    return Compared(
        shown=shown,
        of=len(images),
        before=drawn[0],
        after=drawn[job.step],
        prompts=[sample.prompt for sample in rounds[job.step]],
        concept=subject.concept,
        seconds=(job.ended_at - job.started_at).total_seconds() if job.ended_at and job.started_at else None,
    )


async def _or_why(stack: Stack, service: str, waiting: Coroutine[Any, Any, Any]) -> Any:
    """What is waited for; or that it took too long, with what the service itself says of its trouble."""
    try:
        return await waiting
    except TookTooLong as error:
        raise LoratoryError(f"{error}; {stack.why_not_ready(service) or f'the {service} is ready'}") from error


async def _beside(stack: Stack, work: Coroutine[Any, Any, int]) -> int:
    """Work for as long as the stack stands; when that fails, its reason."""
    watching, working = asyncio.create_task(stack.watch()), asyncio.create_task(work)
    try:
        await asyncio.wait({watching, working}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await watching
        return await working
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.gather(watching, working, return_exceptions=True)


def _port(wanted: int | None) -> int:
    """The one that was asked for, else 8000, else a free one."""
    if wanted is not None:
        return wanted
    try:
        return free_port("127.0.0.1", 8000)
    except SetupError:
        return 0


def _key(environ: Mapping[str, str]) -> str | None:
    """The key that the stack's gateway will ask for."""
    if file := environ.get("LORATORY_API_KEY_FILE"):
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    return environ.get("LORATORY_API_KEY") or None


def _file_of(artifact: Artifact, loras: Path) -> Path | None:
    """Where it lies under its human name: the file with just these bytes."""
    for count, path in enumerate(sorted(loras.rglob("*.safetensors"))):
        if count == MOST_LORAS:
            break
        if path.stat().st_size == artifact.size:
            with path.open("rb") as source:
                if hashlib.file_digest(source, "sha256").hexdigest() == artifact.digest:
                    return path
    return None
