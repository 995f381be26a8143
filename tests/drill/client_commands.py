"""Simulated clients: each sends HTTP requests one after another, with their own keys, and retries until answered."""

import asyncio
import io
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
import msgspec
from PIL import Image

from contracts.commands.base import CommandResult
from contracts.commands.datasets import ImportedFile

API = "/api/v1"
RETRY_TIMEOUT_SECONDS = 180.0
"""How long one command is retried; after that its outcome is unknown."""
RETRY_PAUSE_SECONDS = 0.25
TRANSIENT_STATUSES = frozenset({502, 503, 504, 507})
REPEAT_PROBABILITY = 0.05
"""Share of answered commands that are sent once more: the answer must be the same."""
IMAGES_PER_WRITER = 40
"""Images each writer uploads first: enough for a tagging run to take a while."""

Operation = Literal["dataset", "import", "tags", "caption", "job", "run", "cancel"]


@dataclass
class SentCommand:
    """One command and its outcome; no other command of the drill uses the same `value`."""

    key: str
    operation: Operation
    value: str
    target: str = ""
    """Id of what it created or changed, from the answer."""
    sequence: int | None = None
    """Sequence of its commit, from the answer; None: it was never acknowledged."""
    refusal: str = ""
    answered_differently: bool = False
    """The repeated command got another answer."""


class ImportAnswer(msgspec.Struct):
    items: tuple[ImportedFile, ...]
    sequence: int


@dataclass
class CommandSender:
    """Sends commands over HTTP and records them."""

    http: httpx.AsyncClient
    rng: random.Random
    commands: list[SentCommand] = field(default_factory=list)
    in_flight: int = 0
    server_errors: list[str] = field(default_factory=list)
    """Answers that no injected fault excuses: 500 and the like."""
    requests: int = 0

    async def send(self, command: SentCommand, method: str, path: str, body: Mapping[str, Any]) -> Any:
        """Retry until it is answered or RETRY_TIMEOUT_SECONDS have passed.

        Returns the answer, or None; sequence, target and refusal are stored in `command`.
        """
        self.commands.append(command)
        self.in_flight += 1
        try:
            answer = await self._request(command, method, path, body)
            if answer is not None and self.rng.random() < REPEAT_PROBABILITY:
                repeated = await self._request(command, method, path, body)
                command.answered_differently = repeated is not None and repeated != answer
        finally:
            self.in_flight -= 1
        if answer is None:
            return None
        if command.operation == "import":
            imported = msgspec.convert(answer, ImportAnswer)
            command.sequence = imported.sequence
            return imported
        result = msgspec.convert(answer, CommandResult)
        command.sequence, command.target = result.sequence, result.id
        return result

    async def _request(self, command: SentCommand, method: str, path: str, body: Mapping[str, Any]) -> Any:
        deadline = asyncio.get_running_loop().time() + RETRY_TIMEOUT_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            self.requests += 1
            try:
                response = await self.http.request(
                    method, API + path, headers={"Idempotency-Key": command.key}, **_body_arguments(body)
                )
            except httpx.TransportError:
                await asyncio.sleep(RETRY_PAUSE_SECONDS)
                continue
            if response.is_success:
                return response.json()
            if response.status_code in TRANSIENT_STATUSES:
                await asyncio.sleep(float(response.headers.get("Retry-After", RETRY_PAUSE_SECONDS)))
                continue
            error = f"{response.status_code} to {method} {path}: {response.text[:300]}"
            if response.status_code >= 500:
                self.server_errors.append(error)
                await asyncio.sleep(RETRY_PAUSE_SECONDS)
                continue
            command.refusal = error
            return None
        return None


def _body_arguments(body: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for httpx, rebuilt for each try."""
    if "files" in body:
        return {"files": [("files", (name, content)) for name, content in body["files"]]}
    return {"json": body} if body else {}


@dataclass
class Writer:
    """Owns one data set and keeps editing its images."""

    name: str
    sender: CommandSender
    rng: random.Random
    pause: float
    """Seconds between two commands."""
    images: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    """The last acknowledged tag of each image."""
    captions: dict[str, str] = field(default_factory=dict)
    uncertain_images: set[str] = field(default_factory=set)
    """Images with a command of unknown outcome: their current state cannot be predicted."""
    _count: int = 0

    @property
    def dataset(self) -> str:
        return f"set-{self.name}"

    async def set_up(self) -> None:
        await self._send("dataset", self.dataset, "POST", "/datasets", {"name": self.dataset})
        await self._upload(IMAGES_PER_WRITER)

    async def run(self, should_continue: Callable[[], bool]) -> None:
        while should_continue():
            if not self.images:  # all of them lost
                await self._upload(1)
                continue
            image = self.rng.choice(self.images)
            match self.rng.choices(["tags", "caption", "dataset", "import"], [60, 30, 9, 1])[0]:
                case "tags":
                    await self._tag(image)
                case "caption":
                    await self._caption(image)
                case "dataset":
                    name = self._unique_value()
                    await self._send("dataset", name, "POST", "/datasets", {"name": name})
                case _:
                    await self._upload(1)
            await asyncio.sleep(self.pause)

    async def _tag(self, image: str) -> None:
        """Replace the last tag with a new one; each tag is used once in the whole drill."""
        value, before = self._unique_value(), self.tags.get(image)
        body = {"add": [value], "remove": [before] if before else []}
        if await self._send("tags", value, "PATCH", f"/images/{image}/tags", body):
            self.tags[image] = value
        else:
            self.uncertain_images.add(image)

    async def _caption(self, image: str) -> None:
        value = self._unique_value()
        if await self._send("caption", value, "PUT", f"/images/{image}/caption", {"caption": value}):
            self.captions[image] = value
        else:
            self.uncertain_images.add(image)

    async def _upload(self, count: int) -> None:
        files = [(f"{value}.png", _picture(value)) for value in (self._unique_value() for _ in range(count))]
        answer = await self._send(
            "import", files[0][0], "POST", f"/datasets/{self.dataset}/images", {"files": files}, target=self.dataset
        )
        if answer is not None:
            self.images += [item.image for item in answer.items]

    async def _send(
        self, operation: Operation, value: str, method: str, path: str, body: Mapping[str, Any], *, target: str = ""
    ) -> Any:
        self._count += 1
        command = SentCommand(key=f"{self.name}-{self._count}", operation=operation, value=value, target=target)
        return await self.sender.send(command, method, path, body)

    def _unique_value(self) -> str:
        self._count += 1
        return f"{self.name}-v{self._count:06}"


def _picture(value: str) -> bytes:
    """A small PNG that is different for each value."""
    noise = random.Random(value).randbytes(64 * 64 * 3)
    out = io.BytesIO()
    Image.frombytes("RGB", (64, 64), noise).save(out, "PNG", compress_level=1)
    return out.getvalue()
