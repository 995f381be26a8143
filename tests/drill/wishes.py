"""Writers: each asks for one thing after the other over HTTP, with a key of its own, again and again until answered."""

import asyncio
import io
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
import msgspec
from PIL import Image

from contracts.commands import ImportedFile, Receipt

P = "/api/v1"
PATIENCE = 180.0
"""So long one wish is asked again; then nobody knows what became of it."""
PAUSE = 0.25
PASSING = frozenset({502, 503, 504})
AGAIN = 0.05
"""So often a wish that was answered is sent once more: it must be answered the same."""
IMAGES = 40
"""So many pictures each writer begins with: a tagging run over them takes a while."""

What = Literal["dataset", "import", "tags", "caption", "job", "run", "cancel"]


@dataclass
class Wish:
    """One wish and what became of it; `value` is what nobody else asks for."""

    key: str
    what: What
    value: str
    thing: str = ""
    """Id of what it made or changed, from the answer."""
    sequence: int | None = None
    """Of its commit, from the answer; none: it was never acknowledged."""
    refused: str = ""
    unlike: bool = False
    """Sent again, it was answered otherwise."""


class Imported(msgspec.Struct):
    items: tuple[ImportedFile, ...]
    sequence: int


@dataclass
class Counter:
    """Sends wishes and keeps them."""

    http: httpx.AsyncClient
    chance: random.Random
    wishes: list[Wish] = field(default_factory=list)
    in_flight: int = 0
    broken: list[str] = field(default_factory=list)
    """Answers that no fault excuses: 500, and what is no problem document."""
    tries: int = 0

    async def send(self, wish: Wish, method: str, path: str, body: Mapping[str, Any]) -> Any:
        """Until it is answered or PATIENCE ends; the answer, or None. The wish says the rest."""
        self.wishes.append(wish)
        self.in_flight += 1
        try:
            answer = await self._answered(wish, method, path, body)
            if answer is not None and self.chance.random() < AGAIN:
                again = await self._answered(wish, method, path, body)
                wish.unlike = again is not None and again != answer
        finally:
            self.in_flight -= 1
        if answer is None:
            return None
        if wish.what == "import":
            imported = msgspec.convert(answer, Imported)
            wish.sequence = imported.sequence
            return imported
        receipt = msgspec.convert(answer, Receipt)
        wish.sequence, wish.thing = receipt.sequence, receipt.id
        return receipt

    async def _answered(self, wish: Wish, method: str, path: str, body: Mapping[str, Any]) -> Any:
        until = asyncio.get_running_loop().time() + PATIENCE
        while asyncio.get_running_loop().time() < until:
            self.tries += 1
            try:
                response = await self.http.request(
                    method, P + path, headers={"Idempotency-Key": wish.key}, **_fresh(body)
                )
            except httpx.TransportError:
                await asyncio.sleep(PAUSE)
                continue
            if response.is_success:
                return response.json()
            if response.status_code in PASSING:
                await asyncio.sleep(float(response.headers.get("Retry-After", PAUSE)))
                continue
            told = f"{response.status_code} to {method} {path}: {response.text[:300]}"
            if response.status_code >= 500:
                self.broken.append(told)
                await asyncio.sleep(PAUSE)
                continue
            wish.refused = told
            return None
        return None


def _fresh(body: Mapping[str, Any]) -> dict[str, Any]:
    """httpx's arguments, made anew for each try."""
    if "files" in body:
        return {"files": [("files", (name, content)) for name, content in body["files"]]}
    return {"json": body} if body else {}


@dataclass
class Writer:
    """Owns a data set and edits its images for as long as it is wanted."""

    name: str
    counter: Counter
    chance: random.Random
    pause: float
    """Seconds between two wishes."""
    images: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    """The tag that each image was given last, and that was acknowledged."""
    captions: dict[str, str] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    """Images with a wish that nobody answered: what they look like is not known."""
    _count: int = 0

    @property
    def dataset(self) -> str:
        return f"set-{self.name}"

    async def begin(self) -> None:
        await self._ask("dataset", self.dataset, "POST", "/datasets", {"name": self.dataset})
        await self._bring(IMAGES)

    async def work(self, wanted: Callable[[], bool]) -> None:
        while wanted():
            image = self.chance.choice(self.images)
            match self.chance.choices(["tags", "caption", "dataset", "import"], [60, 30, 9, 1])[0]:
                case "tags":
                    await self._tag(image)
                case "caption":
                    await self._caption(image)
                case "dataset":
                    name = self._value()
                    await self._ask("dataset", name, "POST", "/datasets", {"name": name})
                case _:
                    await self._bring(1)
            await asyncio.sleep(self.pause)

    async def _tag(self, image: str) -> None:
        """A new tag instead of the last one: each is asked for once in the whole drill."""
        value, before = self._value(), self.tags.get(image)
        body = {"add": [value], "remove": [before] if before else []}
        if await self._ask("tags", value, "PATCH", f"/images/{image}/tags", body):
            self.tags[image] = value
        else:
            self.unsure.add(image)

    async def _caption(self, image: str) -> None:
        value = self._value()
        if await self._ask("caption", value, "PUT", f"/images/{image}/caption", {"caption": value}):
            self.captions[image] = value
        else:
            self.unsure.add(image)

    async def _bring(self, count: int) -> None:
        files = [(f"{value}.png", _picture(value)) for value in (self._value() for _ in range(count))]
        told = await self._ask(
            "import", files[0][0], "POST", f"/datasets/{self.dataset}/images", {"files": files}, thing=self.dataset
        )
        if told is not None:
            self.images += [item.image for item in told.items]

    async def _ask(
        self, what: What, value: str, method: str, path: str, body: Mapping[str, Any], *, thing: str = ""
    ) -> Any:
        self._count += 1
        wish = Wish(key=f"{self.name}-{self._count}", what=what, value=value, thing=thing)
        return await self.counter.send(wish, method, path, body)

    def _value(self) -> str:
        self._count += 1
        return f"{self.name}-v{self._count:06}"


def _picture(value: str) -> bytes:
    """Another one for each value, small."""
    noise = random.Random(value).randbytes(64 * 64 * 3)
    out = io.BytesIO()
    Image.frombytes("RGB", (64, 64), noise).save(out, "PNG", compress_level=1)
    return out.getvalue()
