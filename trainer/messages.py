"""What parent and child say to each other over the pipe: orders down, updates up, one length-prefixed frame each.

A frame is four bytes of length (big-endian) and that many bytes of MessagePack. The child ends when its pipe closes.
"""

from typing import BinaryIO, Literal

import msgspec

from contracts.recipe import Recipe

PREFIX = 4
"""Bytes of the length in front of every frame."""

ORDER_LIMIT = 256 * 2**20
"""Bytes of an order at most: a hundred thousand pictures with a page of caption each."""

UPDATE_LIMIT = 2**20
"""Bytes of an update at most."""


class BadFrame(Exception):
    """The other side broke the protocol: a frame is cut off, too long, or makes no sense."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One picture of the manifest: where its bytes lie on this machine, their sha256, and the text it is trained with.

    The caption is used as it stands: a trigger must already be in it. `ordinal` is its place in the data set.
    """

    path: str
    digest: str
    caption: str
    ordinal: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the finished file says about where it comes from. It goes into the header word for word."""

    adapter_name: str
    job_id: str
    dataset_name: str
    dataset_version: int
    base_name: str
    trigger: str | None = None
    tag_frequency: dict[str, int] = {}


class Train(msgspec.Struct, frozen=True, kw_only=True, tag="train"):
    """One order: train this, here. Everything is written below `work_folder`, caches below `cache_folder`.

    `resume_from` is a checkpoint file of this same order (its length, samples and saves may differ).
    """

    recipe: Recipe
    base_folder: str
    examples: list[Example]
    work_folder: str
    cache_folder: str
    facts: Facts
    resume_from: str | None = None


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """Stop between two steps; with `save`, leave a checkpoint of the last step done. The child stays for the next."""

    save: bool


Order = Train | Stop


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The child can take an order. `device` is what `auto` would choose; `seconds` since the process began."""

    device: str
    versions: dict[str, str]
    seconds: float


class Loading(msgspec.Struct, frozen=True, kw_only=True, tag="loading"):
    """Work before the first step: `done` of `total`, where it can be counted."""

    what: Literal["libraries", "base", "latents", "texts"]
    done: int = 0
    total: int = 1


class BucketSize(msgspec.Struct, frozen=True, kw_only=True):
    """Width and height in pixels, and how many pictures of the manifest are cut to them."""

    width: int
    height: int
    pictures: int


class Planned(msgspec.Struct, frozen=True, kw_only=True, tag="planned"):
    """What will be done, known before the first step. `step` is where it goes on from (0: from the beginning).

    `base` is the sha256 over the base's files, `fingerprint` names all that decides what a step does, `warm` says that
    the base was loaded already. `cut_captions` counts captions longer than the text encoder reads:
    their ends are not seen.
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
    cut_captions: int = 0


class Stepped(msgspec.Struct, frozen=True, kw_only=True, tag="stepped"):
    """One optimizer update is done. `gradient` is the norm before clipping, `seconds` the wall time of this step."""

    step: int
    epoch: int
    loss: float
    lr: float
    gradient: float
    seconds: float


class Saved(msgspec.Struct, frozen=True, kw_only=True, tag="saved"):
    """A checkpoint lies whole on the disk: adapter, optimizer and place in the data."""

    step: int
    path: str


class Sampled(msgspec.Struct, frozen=True, kw_only=True, tag="sampled"):
    """A sample lies whole on the disk as PNG. After a resume the samples of that step are told again, same bytes."""

    step: int
    index: int
    prompt: str
    seed: int
    path: str


class TensorFile(msgspec.Struct, frozen=True, kw_only=True):
    """A safetensors file, and the sha256 of its data after the header (`sshs_model_hash`)."""

    path: str
    tensors: str


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """The run is over and its files lie whole on the disk: kohya keys for most programs, and diffusers' own."""

    step: int
    kohya: TensorFile
    diffusers: TensorFile


class Stopped(msgspec.Struct, frozen=True, kw_only=True, tag="stopped"):
    """Stopped as asked after `step`; `path` is the checkpoint, if one was asked for and a step has been done."""

    step: int
    path: str | None


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The order cannot be carried out; the child stays for the next one, unless the code is `internal`.

    rejected: recipe, base or device do not fit; bad-picture: one cannot be read; bad-checkpoint: torn or of another
    run (an older one may do); out-of-memory; disk-full; diverged: the loss is no number any more; internal: our fault.
    """

    code: Literal["rejected", "bad-picture", "bad-checkpoint", "out-of-memory", "disk-full", "diverged", "internal"]
    reason: str


Update = Ready | Loading | Planned | Stepped | Saved | Sampled | Finished | Stopped | Failed

_encoder = msgspec.msgpack.Encoder()
_orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
_updates: msgspec.msgpack.Decoder[Update] = msgspec.msgpack.Decoder(Update)


def frame(message: Order | Update) -> bytes:
    """The message as it goes over the pipe."""
    body = _encoder.encode(message)
    limit = ORDER_LIMIT if isinstance(message, Train | Stop) else UPDATE_LIMIT
    if len(body) > limit:
        raise BadFrame(f"a message of {len(body)} bytes is larger than the pipe takes ({limit})")
    return len(body).to_bytes(PREFIX) + body


def length(prefix: bytes, *, limit: int = UPDATE_LIMIT) -> int:
    """How many bytes follow these four; BadFrame if more than the limit."""
    size = int.from_bytes(prefix)
    if size > limit:
        raise BadFrame(f"a frame of {size} bytes is larger than the pipe takes ({limit})")
    return size


def update_in(body: bytes) -> Update:
    """The update in the body of a frame; BadFrame if it is none."""
    try:
        return _updates.decode(body)
    except msgspec.DecodeError as error:
        raise BadFrame(f"the child sent what is no update: {error}") from error


def next_order(pipe: BinaryIO) -> Order | None:
    """Wait for the next order; None when the pipe was closed between two frames."""
    prefix = pipe.read(PREFIX)
    if not prefix:
        return None
    body = pipe.read(length(prefix, limit=ORDER_LIMIT)) if len(prefix) == PREFIX else b""
    try:
        return _orders.decode(body)
    except msgspec.DecodeError as error:
        raise BadFrame(f"the parent sent what is no order: {error}") from error
