"""The messages between trainer and engine process: requests down, updates up."""

from typing import Literal

import msgspec

from contracts.recipe import Recipe


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One picture of the manifest: its file on this machine, the file's sha256, and its training text.

    The caption is used unchanged: it must already contain the trigger. `ordinal` is the picture's number in the data
    set. `repeats`: how often it is seen in an epoch, times the recipe's.
    `has_mask`: it has one, which nothing uses yet.
    """

    path: str
    digest: str
    caption: str
    ordinal: int
    repeats: int = 1
    has_mask: bool = False


class AdapterMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Where the adapter comes from, for the header of the finished files.

    `tag_frequency`: by the repeats of images, how many of them have each tag.
    """

    adapter_name: str
    job_id: str
    dataset_name: str
    dataset_version: int
    base_name: str
    trigger: str | None = None
    tag_frequency: dict[int, dict[str, int]] = {}


class Train(msgspec.Struct, frozen=True, kw_only=True, tag="train"):
    """Train an adapter. Files are written below `work_folder`, caches below `cache_folder`.

    `draft_folder`, on the file system of the cache, is for files of the cache that are not finished: it is deleted with
    the work folder, also after the engine was killed.

    `resume_from` is a checkpoint of the same run; length, sampling and save interval may differ.
    """

    recipe: Recipe
    base_folder: str
    examples: list[Example]
    work_folder: str
    cache_folder: str
    draft_folder: str
    metadata: AdapterMetadata
    resume_from: str | None = None


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """Stop between two steps; with `save`, write a checkpoint first. The engine then waits for the next request."""

    save: bool


EngineRequest = Train | Stop


class EngineReady(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The engine accepts requests. `device` is what `auto` chooses; `seconds` is the time since process start."""

    device: str
    versions: dict[str, str]
    seconds: float


class Loading(msgspec.Struct, frozen=True, kw_only=True, tag="loading"):
    """Progress before the first step, `done` of `total`."""

    what: Literal["libraries", "base", "latents", "texts"]
    done: int = 0
    total: int = 1


class Planned(msgspec.Struct, frozen=True, kw_only=True, tag="planned"):
    """The plan of the run, sent before the first step. `step` is the step it resumes after (0: from the beginning).

    `base` is the sha256 over the base's files, `warm` means that the base was already loaded. `truncated_captions`
    counts captions longer than the text encoder's limit, `unused_masks` pictures with a mask.
    """

    step: int
    steps: int
    epochs: int
    device: str
    precision: str
    base: str
    warm: bool
    truncated_captions: int = 0
    unused_masks: int = 0


class Stepped(msgspec.Struct, frozen=True, kw_only=True, tag="stepped"):
    """One optimizer update is done."""

    step: int
    epoch: int
    loss: float
    lr: float


class Saved(msgspec.Struct, frozen=True, kw_only=True, tag="saved"):
    """A checkpoint is complete on disk: adapter, optimizer state and training cursor."""

    step: int
    path: str


class Sampled(msgspec.Struct, frozen=True, kw_only=True, tag="sampled"):
    """A sample is complete on disk, as PNG. After a resume, samples of that step are sent again with the same bytes."""

    step: int
    index: int
    prompt: str
    seed: int
    path: str


class TensorFile(msgspec.Struct, frozen=True, kw_only=True):
    """A safetensors file; `tensors` is the sha256 of its data after the header (`sshs_model_hash`)."""

    path: str
    tensors: str


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """The run is complete and its files are on disk: one with kohya's keys, one with diffusers' keys."""

    step: int
    kohya: TensorFile
    diffusers: TensorFile


class Stopped(msgspec.Struct, frozen=True, kw_only=True, tag="stopped"):
    """Stopped on request after `step`; `path` is the checkpoint, if one was requested and there was a step."""

    step: int
    path: str | None


class DeviceMemory(msgspec.Struct, frozen=True, kw_only=True, tag="device-memory"):
    """Memory of the device in bytes; `used` by all programs. Sent at most once a second, and not for CPUs."""

    used: int
    total: int


class RequestFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The request failed. The engine accepts the next one, unless the code is `internal`: then it exits.

    rejected: recipe, base or device are not supported; bad-picture: one cannot be read; bad-checkpoint: damaged or of
    another run (an older one may work); out-of-memory; disk-full; diverged: the loss is not finite; internal: a bug.
    """

    code: Literal["rejected", "bad-picture", "bad-checkpoint", "out-of-memory", "disk-full", "diverged", "internal"]
    reason: str


Update = EngineReady | Loading | Planned | Stepped | Saved | Sampled | Finished | Stopped | DeviceMemory | RequestFailed
