"""Pictures and captions as the denoiser wants them: encoded once, kept on disk under the hash of what they are made of.

Each is encoded alone, never in a batch, and always read back as it was stored: so a value does not depend on when it
was made, and a resumed run sees the same bits. A cache file that cannot be read is made again.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps

from contracts.recipe import Data, Recipe
from trainer import chance
from trainer.engine import files
from trainer.families import Model, Tensors, digest_over
from trainer.messages import Example, Loading
from trainer.plan import Size

_FORMAT = "2"
"""Of the cache. Another way to resize or encode is another number, and never meets the old files."""

_NOBODY = "none"
"""Whose folder holds what is of no picture: the empty caption."""

_MEMORY = 2**30
"""Bytes of encodings kept in memory besides: about 4,000 pictures of SD 1.x at 512 px with their captions."""


_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises on files that are torn, no pictures, or far too large."""


class BadPicture(Exception):
    """A picture of the manifest cannot be read."""


class Cache:
    """Encodings below one folder and, the newest of them, in memory. A name is the digest of all that decides them.

    What is made of one picture and its caption lies in a folder of that picture, so that it can be found and dropped.
    """

    def __init__(self, folder: Path, *, memory: int = _MEMORY) -> None:
        self._folder = folder
        self._room = memory
        self._held: dict[str, Tensors] = {}

    def stored(self, kind: str, picture: str, *parts: str, make: Callable[[], Tensors]) -> Tensors:
        """What lies on the disk for this picture (a digest) under these parts, or is made now and put there."""
        name = digest_over(_FORMAT, kind, picture, *parts)
        path = self._folder / "pictures" / picture[:2] / picture / f"{kind}-{name}.safetensors"
        return self._held.get(name) or self._hold(name, _read_or_made(path, make))

    def made(self, kind: str, *parts: str, make: Callable[[], Tensors]) -> Tensors:
        """What was made under these parts lately, or is made now; never on the disk."""
        name = digest_over(_FORMAT, kind, *parts)
        return self._held.get(name) or self._hold(name, make())

    def _hold(self, name: str, tensors: Tensors) -> Tensors:
        self._held[name] = tensors
        self._room -= _size(tensors)
        while self._room < 0 and len(self._held) > 1:
            self._room += _size(self._held.pop(next(iter(self._held))))
        return tensors


def _read_or_made(path: Path, make: Callable[[], Tensors]) -> Tensors:
    try:
        return files.unsealed(path)[0]
    except (ValueError, FileNotFoundError):
        files.write_whole(path, files.sealed(make(), {}))
        return files.unsealed(path)[0]


def _size(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


class Pictures:
    """The encoded pictures of the manifest, by their place in it."""

    def __init__(self, examples: Sequence[Example], sizes: dict[int, Size], model: Model, cache: Cache) -> None:
        self._examples = examples
        self._sizes = sizes
        self._model = model
        self._cache = cache

    def load(self) -> Iterator[Loading]:
        """Encode what is not on the disk yet, telling after each picture."""
        for place in range(len(self._examples)):
            self.at(place)
            yield Loading(what="latents", done=place + 1, total=len(self._examples))

    def at(self, place: int) -> Tensors:
        example, (width, height) = self._examples[place], self._sizes[place]
        parts = example.digest, self._model.pixel_identity, str(width), str(height)
        make = partial(self._encoded, example, (width, height))
        return self._cache.stored("latents", *parts, make=make)

    def _encoded(self, example: Example, size: Size) -> Tensors:
        return self._model.encode_pixels(pixels(example, size))


class Texts:
    """What the text encoder says to captions: on disk where they are used as they stand, in memory where shuffled."""

    def __init__(self, examples: Sequence[Example], recipe: Recipe, model: Model, cache: Cache) -> None:
        data, keep = recipe.data, recipe.preservation
        self._captions = [example.caption for example in examples]
        self._to_keep = keep.prompts if keep is not None else ()
        self._pictures = [example.digest for example in examples]
        self._data = data
        self._model = model
        self._cache = cache
        self._latest: tuple[str, Tensors] | None = None

    def load(self) -> Iterator[Loading]:
        """Encode what can be known before the first step and is not on the disk yet, telling after each caption."""
        wanted = [] if self._data.shuffle_tags else self._captions
        for place, caption in enumerate(wanted):
            self._encoded(place, caption)
            yield Loading(what="texts", done=place + 1, total=len(wanted))

    def cut(self) -> int:
        """How many captions are longer than the encoder reads."""
        return sum(self._model.is_cut(caption) for caption in self._captions)

    def at(self, place: int, seed: int, step: int, sample: int) -> Tensors:
        """The text of one sample: its caption, perhaps shuffled, perhaps dropped."""
        return self._encoded(place, seen(self._captions[place], self._data, seed, step, sample))

    def kept_at(self, place: int, seed: int, step: int, sample: int) -> Tensors:
        """A text without the trigger, for the same sample: one of the prompts to keep, or the rest of its caption."""
        if self._to_keep:
            said = self._to_keep[chance.key(seed, step, sample, "prompt to keep") % len(self._to_keep)]
        else:
            said = ", ".join(_parts(self._captions[place])[self._data.keep_tags :])
        return self._cache.made("texts", self._model.text_identity, said, make=partial(self._said, said))

    def _encoded(self, place: int, caption: str) -> Tensors:
        make, parts = partial(self._said, caption), (self._model.text_identity, caption)
        if self._data.shuffle_tags:
            return self._cache.made("texts", *parts, make=make)
        return self._cache.stored("texts", self._pictures[place] if caption else _NOBODY, *parts, make=make)

    def _said(self, caption: str) -> Tensors:
        """Pictures often share a caption; it is encoded once for those that come in a row."""
        if self._latest is None or self._latest[0] != caption:
            self._latest = caption, self._model.encode_text(caption)
        return self._latest[1]


def seen(caption: str, data: Data, seed: int, step: int, sample: int) -> str:
    """The caption as this sample of this step sees it."""
    if chance.share(seed, step, sample, "caption dropout") < data.caption_dropout:
        return ""
    if not data.shuffle_tags:
        return caption
    tags = _parts(caption)
    return ", ".join(tags[: data.keep_tags] + chance.order(tags[data.keep_tags :], seed, step, sample, "tags"))


def _parts(caption: str) -> list[str]:
    return [tag.strip() for tag in caption.split(",") if tag.strip()]


def size_of(example: Example) -> Size:
    """Width and height of a picture in pixels, from its header; BadPicture if it cannot be read."""
    try:
        with Image.open(example.path) as picture:
            return picture.size
    except _UNREADABLE as error:
        raise _bad(example, error) from error


def pixels(example: Example, size: Size) -> torch.Tensor:
    """The picture scaled to cover `size`, cut to it around its middle: float32 [3, height, width] in -1…1."""
    try:
        with Image.open(example.path) as picture:
            cut = ImageOps.fit(_opaque(picture), size, Image.Resampling.LANCZOS)
    except _UNREADABLE as error:
        raise _bad(example, error) from error
    values = torch.from_numpy(numpy.asarray(cut, dtype=numpy.float32).copy())
    return values.permute(2, 0, 1).contiguous() / 127.5 - 1


def _opaque(picture: Image.Image) -> Image.Image:
    """RGB; what is transparent becomes white, not whatever colour happens to lie under it."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    ground = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")


def _bad(example: Example, error: Exception) -> BadPicture:
    """The reason without the path: where a file lies on this machine is nobody's business."""
    return BadPicture(f"picture {example.ordinal} cannot be read: {str(error).replace(example.path, 'its file')}")
