"""The pipe protocol between trainer and engine process: requests down, updates up, one length-prefixed frame each.

A frame is a length (four bytes, big-endian) and a MessagePack body. The engine exits when its pipe closes.
"""

from typing import BinaryIO, Literal

import msgspec

from contracts.recipe import Recipe

PREFIX_BYTES = 4
"""Size of the length field before every frame's body."""

MAX_REQUEST_BYTES = 256 * 2**20
"""Maximum size of a request: enough for a hundred thousand pictures with a page of caption each."""

MAX_UPDATE_BYTES = 2**20
"""Maximum size of an update."""


class InvalidFrame(Exception):
    """Protocol error: a frame is truncated, too long, or cannot be decoded."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One picture of the manifest: its file on this machine, the file's sha256, and its training text.

    The caption is used unchanged: it must already contain the trigger. `ordinal` is the picture's number in the data
    set.
    """

    path: str
    digest: str
    caption: str
    ordinal: int


class AdapterMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Where the adapter comes from, for the header of the finished files."""

    adapter_name: str
    job_id: str
    dataset_name: str
    dataset_version: int
    base_name: str
    trigger: str | None = None
    tag_frequency: dict[str, int] = {}


class Train(msgspec.Struct, frozen=True, kw_only=True, tag="train"):
    """Train an adapter. Files are written below `work_folder`, caches below `cache_folder`.

    `resume_from` is a checkpoint of the same run; length, sampling and save interval may differ.
    """

    recipe: Recipe
    base_folder: str
    examples: list[Example]
    work_folder: str
    cache_folder: str
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


class BucketSize(msgspec.Struct, frozen=True, kw_only=True):
    """Width and height in pixels, and the number of pictures of the manifest cropped to it."""

    width: int
    height: int
    pictures: int


class Planned(msgspec.Struct, frozen=True, kw_only=True, tag="planned"):
    """The plan of the run, sent before the first step. `step` is the step it resumes after (0: from the beginning).

    `base` is the sha256 over the base's files, `fingerprint` the digest of everything that affects a step, `warm` means
    that the base was already loaded. `truncated_captions` counts captions longer than the text encoder's limit.
    """

    step: int
    steps: int
    epochs: int
    steps_per_epoch: int
    pictures: int
    buckets: list[BucketSize]
    parameters: int
    device: str
    precision: str
    base: str
    fingerprint: str
    warm: bool
    truncated_captions: int = 0


class Stepped(msgspec.Struct, frozen=True, kw_only=True, tag="stepped"):
    """One optimizer update is done. `grad_norm` is measured before clipping; `seconds` is this step's wall time."""

    step: int
    epoch: int
    loss: float
    lr: float
    grad_norm: float
    seconds: float


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


class RequestFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The request failed. The engine accepts the next one, unless the code is `internal`: then it exits.

    rejected: recipe, base or device are not supported; bad-picture: one cannot be read; bad-checkpoint: damaged or of
    another run (an older one may work); out-of-memory; disk-full; diverged: the loss is not finite; internal: a bug.
    """

    code: Literal["rejected", "bad-picture", "bad-checkpoint", "out-of-memory", "disk-full", "diverged", "internal"]
    reason: str


Update = EngineReady | Loading | Planned | Stepped | Saved | Sampled | Finished | Stopped | RequestFailed

_encoder = msgspec.msgpack.Encoder()
_request_decoder: msgspec.msgpack.Decoder[EngineRequest] = msgspec.msgpack.Decoder(EngineRequest)
_update_decoder: msgspec.msgpack.Decoder[Update] = msgspec.msgpack.Decoder(Update)


def encode_frame(message: EngineRequest | Update) -> bytes:
    """The message as a frame; InvalidFrame if it is larger than the limit."""
    body = _encoder.encode(message)
    limit = MAX_REQUEST_BYTES if isinstance(message, Train | Stop) else MAX_UPDATE_BYTES
    if len(body) > limit:
        raise InvalidFrame(f"a message of {len(body)} bytes exceeds the limit of {limit}")
    return len(body).to_bytes(PREFIX_BYTES) + body


def body_length(prefix: bytes, *, limit: int = MAX_UPDATE_BYTES) -> int:
    """The length of a frame's body from its prefix; InvalidFrame if it exceeds the limit."""
    size = int.from_bytes(prefix)
    if size > limit:
        raise InvalidFrame(f"a frame of {size} bytes exceeds the limit of {limit}")
    return size


def decode_update(body: bytes) -> Update:
    """Decode the body of a frame; InvalidFrame if it is not an update."""
    try:
        return _update_decoder.decode(body)
    except msgspec.DecodeError as error:
        raise InvalidFrame(f"the engine sent an invalid update: {error}") from error


def read_request(pipe: BinaryIO) -> EngineRequest | None:
    """Block until the next request; None if the pipe was closed between two frames."""
    prefix = pipe.read(PREFIX_BYTES)
    if not prefix:
        return None
    body = pipe.read(body_length(prefix, limit=MAX_REQUEST_BYTES)) if len(prefix) == PREFIX_BYTES else b""
    try:
        return _request_decoder.decode(body)
    except msgspec.DecodeError as error:
        raise InvalidFrame(f"the parent sent an invalid request: {error}") from error
