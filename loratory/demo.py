"""The whole job once, on this machine: pictures, data set, tags, training, LoRA."""

import asyncio
import hashlib
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from contracts.errors import LoratoryError, SetupError
from contracts.events import Artifact
from loratory.answers import Job, Training
from loratory.client import AsyncClient, TookTooLong
from loratory.following import Lines, Patience, until_ended, until_tagged, until_taken
from loratory.pictures import Found, found_in
from loratory.services import SERVE
from loratory.stack import Stack, free_port
from loratory.words import of_import

PRESET = "stand-in-demo"
DRAWN = 12
PATIENCE = 60.0
"""Seconds the demo waits for a tagger or trainer to come."""
DRAW_WITHIN = 120.0
SHELVED_WITHIN = 15.0
MOST_LORAS = 10_000


class Demo:
    """`images`: a folder of pictures, none = drawn ones; `steps`: of the training, none = the preset's.

    `patience`: seconds to wait for a tagger or trainer that is not there.
    """

    def __init__(  # noqa: PLR0913 - each is an option of `loratory demo`
        self,
        data: Path,
        environ: Mapping[str, str],
        lines: Lines,
        *,
        images: Path | None,
        steps: int | None,
        patience: float = PATIENCE,
    ) -> None:
        self._data = data.expanduser().absolute()
        self._environ = environ
        self._lines = lines
        self._images = images.expanduser() if images else None
        self._steps = steps
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
        if found is None:
            found = await self._drawn()
        async with AsyncClient(stack.address, _key(self._environ)) as client:
            dataset = f"demo {self._images.resolve().name}"[:100] if self._images else "demo"
            await self._import(client, dataset, found)
            await self._tag(client, dataset, stack)
            return await self._train(client, dataset, stack)

    async def _drawn(self) -> Found:
        folder = self._data / "demo-pictures"
        self._lines.say(f"drawing {DRAWN} pictures")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "trainer.demo.pictures", str(folder), "--count", str(DRAWN), "--seed", "0"),
            env=dict(self._environ),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(DRAW_WITHIN):
                _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            last = said.decode(errors="replace").strip().rpartition("\n")[2]
            raise LoratoryError(f"the pictures could not be drawn: {last or f'exit code {process.returncode}'}")
        return await asyncio.to_thread(found_in, folder)

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

    async def _train(self, client: AsyncClient, dataset: str, stack: Stack) -> int:
        asked = Training(preset=PRESET, name=dataset)
        if self._steps is not None:
            asked["changes"] = {"length": {"type": "steps", "count": self._steps}}
        job = await client.train(dataset, **asked)
        await _or_why(stack, "trainer", until_taken(client, job.id, self._patience()))
        code = await until_ended(client, job.id, self._lines)
        job = await client.job(job.id)
        if code == 0:
            await self._show(job, stack)
        return code

    async def _show(self, job: Job, stack: Stack) -> None:
        for artifact in job.artifacts:
            path = await self._lying(artifact, stack.data / "loras")
            place = path or f"{stack.address}/api/v1/jobs/{job.id}/artifacts/{artifact.name}"
            self._lines.say(f"LoRA ({artifact.format}): {place}\n  sha256 {artifact.digest}")

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
