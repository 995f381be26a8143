"""Encoded pictures and captions: encoded once and cached on disk under a digest of everything that affects the result.

Each item is encoded alone, never in a batch, and always read back from what was stored: so its value does not depend
on when it was computed, and a resumed run gets the same bits. Unreadable cache files are recomputed.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps

from contracts.pixels import on_white, to_upright_srgb, upright_size
from contracts.recipe import Data, Recipe
from trainer import seeded
from trainer.engine import files
from trainer.families import Model, Tensors, digest_strings
from trainer.messages import Example, Loading
from trainer.plan import Size

_CACHE_FORMAT = "2"
"""Part of every cache key. Change it when resizing or encoding changes, so that old files are not used."""

_NO_PICTURE = "none"
"""Folder of encodings that belong to no picture: the empty caption's."""

_MEMORY_BYTES = 2**30
"""Maximum size of encodings kept in memory: about 4,000 pictures of SD 1.x at 512 px with their captions."""

_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for files that are truncated, not pictures, or far too large."""


class BadPicture(Exception):
    """A picture of the manifest cannot be read."""


class EncodingCache:
    """Encodings in one folder, the newest of them also in memory. A key is the digest of everything that affects it.

    Encodings of a picture and its caption are in a folder of that picture, so that they can be deleted with it.
    """

    def __init__(self, folder: Path, *, drafts: Path | None = None, memory: int = _MEMORY_BYTES) -> None:
        """`drafts`: the folder of files that are being written, on the same file system as `folder`."""
        self._folder, self._drafts = folder, drafts
        self._free_bytes = memory
        self._in_memory: dict[str, Tensors] = {}

    def load_or_encode(self, kind: str, picture: str, *parts: str, encode: Callable[[], Tensors]) -> Tensors:
        """The encoding cached for this picture (a digest) and these parts; encoded and stored if missing."""
        key = digest_strings(_CACHE_FORMAT, kind, picture, *parts)
        path = self._folder / "pictures" / picture[:2] / picture / f"{kind}-{key}.safetensors"
        return self._in_memory.get(key) or self._remember(key, self._read_or_encode(path, encode))

    def encode_in_memory(self, kind: str, *parts: str, encode: Callable[[], Tensors]) -> Tensors:
        """The encoding of these parts, cached in memory only."""
        key = digest_strings(_CACHE_FORMAT, kind, *parts)
        return self._in_memory.get(key) or self._remember(key, encode())

    def _read_or_encode(self, path: Path, encode: Callable[[], Tensors]) -> Tensors:
        try:
            return files.load_verified(path)[0]
        except (ValueError, FileNotFoundError):
            files.write_atomically(path, files.serialize_with_digest(encode(), {}), self._drafts)
            return files.load_verified(path)[0]

    def _remember(self, key: str, tensors: Tensors) -> Tensors:
        self._in_memory[key] = tensors
        self._free_bytes -= _nbytes(tensors)
        while self._free_bytes < 0 and len(self._in_memory) > 1:
            self._free_bytes += _nbytes(self._in_memory.pop(next(iter(self._in_memory))))
        return tensors


def _nbytes(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


class PictureEncodings:
    """The encoded pictures of the manifest, by their index in it."""

    def __init__(self, examples: Sequence[Example], sizes: dict[int, Size], model: Model, cache: EncodingCache) -> None:
        self._examples = examples
        self._sizes = sizes
        self._model = model
        self._cache = cache

    def load(self) -> Iterator[Loading]:
        """Fill the cache; yields progress after each picture."""
        for index in range(len(self._examples)):
            self.get(index)
            yield Loading(what="latents", done=index + 1, total=len(self._examples))

    def get(self, index: int) -> Tensors:
        example, (width, height) = self._examples[index], self._sizes[index]
        parts = example.digest, self._model.vae_digest, str(width), str(height)
        encode = partial(self._encode, example, (width, height))
        return self._cache.load_or_encode("latents", *parts, encode=encode)

    def _encode(self, example: Example, size: Size) -> Tensors:
        return self._model.encode_pixels(load_pixels(example, size))


class TextEncodings:
    """Text embeddings of captions: cached on disk, or in memory only when tags are shuffled."""

    def __init__(self, examples: Sequence[Example], recipe: Recipe, model: Model, cache: EncodingCache) -> None:
        data, preservation = recipe.data, recipe.preservation
        self._captions = [example.caption for example in examples]
        self._preservation_prompts = preservation.prompts if preservation is not None else ()
        self._pictures = [example.digest for example in examples]
        self._data = data
        self._model = model
        self._cache = cache
        self._latest: tuple[str, Tensors] | None = None

    def load(self) -> Iterator[Loading]:
        """Fill the cache with the captions known before the first step; yields progress after each."""
        captions = [] if self._data.shuffle_tags else self._captions
        for index, caption in enumerate(captions):
            self._get(index, caption)
            yield Loading(what="texts", done=index + 1, total=len(captions))

    def count_truncated(self) -> int:
        """Number of captions longer than the text encoder's limit."""
        return sum(self._model.is_truncated(caption) for caption in self._captions)

    def get(self, index: int, seed: int, step: int, sample: int) -> Tensors:
        """The text of one sample: its caption, shuffled or dropped as the recipe says."""
        return self._get(index, augment_caption(self._captions[index], self._data, seed, step, sample))

    def get_preservation(self, index: int, seed: int, step: int, sample: int) -> Tensors:
        """A text without the trigger for the same sample: a preservation prompt, or the rest of its caption."""
        if self._preservation_prompts:
            number = seeded.seed_for(seed, step, sample, "prompt to keep") % len(self._preservation_prompts)
            text = self._preservation_prompts[number]
        else:
            text = ", ".join(_split_tags(self._captions[index])[self._data.keep_tags :])
        parts = self._model.text_encoder_digest, text
        return self._cache.encode_in_memory("texts", *parts, encode=partial(self._encode, text))

    def _get(self, index: int, caption: str) -> Tensors:
        encode, parts = partial(self._encode, caption), (self._model.text_encoder_digest, caption)
        if self._data.shuffle_tags:
            return self._cache.encode_in_memory("texts", *parts, encode=encode)
        picture = self._pictures[index] if caption else _NO_PICTURE
        return self._cache.load_or_encode("texts", picture, *parts, encode=encode)

    def _encode(self, caption: str) -> Tensors:
        """Pictures often share a caption, so the last result is reused for consecutive ones."""
        if self._latest is None or self._latest[0] != caption:
            self._latest = caption, self._model.encode_text(caption)
        return self._latest[1]


def augment_caption(caption: str, data: Data, seed: int, step: int, sample: int) -> str:
    """The caption for one sample, with caption dropout and tag shuffling applied."""
    if seeded.uniform(seed, step, sample, "caption dropout") < data.caption_dropout:
        return ""
    if not data.shuffle_tags:
        return caption
    tags = _split_tags(caption)
    return ", ".join(tags[: data.keep_tags] + seeded.shuffled(tags[data.keep_tags :], seed, step, sample, "tags"))


def _split_tags(caption: str) -> list[str]:
    return [tag.strip() for tag in caption.split(",") if tag.strip()]


def read_size(example: Example) -> Size:
    """Width and height of the upright picture in pixels, from its header; BadPicture if it cannot be read."""
    try:
        with Image.open(example.path) as picture:
            return upright_size(picture)
    except _UNREADABLE as error:
        raise _bad_picture(example, error) from error


def load_pixels(example: Example, size: Size) -> torch.Tensor:
    """The upright picture scaled to cover `size` and center-cropped to it: float32 [3, height, width] in -1…1."""
    try:
        with Image.open(example.path) as picture:
            upright, _ = to_upright_srgb(picture)
            cropped = ImageOps.fit(on_white(upright), size, Image.Resampling.LANCZOS)
    except _UNREADABLE as error:
        raise _bad_picture(example, error) from error
    values = torch.from_numpy(numpy.asarray(cropped, dtype=numpy.float32).copy())
    return values.permute(2, 0, 1).contiguous() / 127.5 - 1


def _bad_picture(example: Example, error: Exception) -> BadPicture:
    """The reason without the path: local paths are not disclosed."""
    return BadPicture(f"picture {example.ordinal} cannot be read: {str(error).replace(example.path, 'its file')}")
