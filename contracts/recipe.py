"""The recipe of a training: a tree of frozen tagged unions, every number with its unit and source.

Invalid combinations cannot be expressed, unknown fields are errors, and the engine uses every field. Numbers are
validated when a recipe is decoded from JSON (`msgspec.Meta`), and by `validate_recipe` for one built in Python.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from contracts.errors import Rejected
from contracts.validation import describe_decode_error

RECIPE_VERSION: Final = 2
"""Version of recipes written now: a change of the tree that is more than a new field with a default needs a new one."""
Natural = Annotated[int, Meta(ge=1, le=1_000_000)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Rate = Annotated[float, Meta(gt=0, le=10)]
Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0, le=1e6)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base class of the nodes of the tree."""


class BuiltinBase(_Part, frozen=True, tag="builtin"):
    """A base that comes with Loratory, with the architecture of SD 1.x.

    `demo` was trained on a small world of drawn creatures at 64 px; `tiny-random` has random weights from a fixed seed
    and learns next to nothing.
    """

    name: Literal["demo", "tiny-random"]


class FolderBase(_Part, frozen=True, tag="folder"):
    """A diffusers pipeline folder (`model_index.json`, safetensors weights) on the trainer's machine.

    `path` is absolute, or relative to the trainer's bases folder (`LORATORY_BASES`).
    """

    path: Annotated[str, Meta(min_length=1, max_length=4096)]


Base = BuiltinBase | FolderBase
Layers = Literal["attention", "transformer"]


class LoRA(_Part, frozen=True, tag="lora"):
    """Low-rank adaptation (Hu et al. 2021) of the denoiser's transformer blocks.

    `rank` is the width of the two factors, `alpha` their scale: the adapter adds `alpha / rank * B A x`.
    `dropout` is the share of inputs zeroed before A while training. `layers`: `attention` adapts the projections
    `to_q to_k to_v to_out.0` (diffusers' choice), `transformer` the feed-forward layers and the projections into and
    out of the blocks besides (sd-scripts' choice: all of `Transformer2DModel`).
    """

    rank: Annotated[int, Meta(ge=1, le=1024)] = 8
    alpha: Positive = 8.0
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    layers: Layers = "attention"


Adapter = LoRA


class AdamW(_Part, frozen=True, tag="adamw"):
    """Loshchilov & Hutter 2019, with torch's defaults except for the rate, a common one for LoRAs.

    `lr` per step, `weight_decay` per step and unit of rate, `beta1`/`beta2` decay of the moments, `eps` under the root.
    """

    lr: Rate = 1e-4
    beta1: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Meta(ge=0, lt=1)] = 0.999
    eps: Annotated[float, Meta(gt=0, le=1)] = 1e-8
    weight_decay: Annotated[float, Meta(ge=0, le=1)] = 1e-2


class Adafactor(_Part, frozen=True, tag="adafactor"):
    """Shazeer & Stern 2018, as `torch.optim.Adafactor`: less memory; `lr` is its largest relative step."""

    lr: Rate = 1e-2
    weight_decay: Annotated[float, Meta(ge=0, le=1)] = 0.0


Optimizer = AdamW | Adafactor


class Constant(_Part, frozen=True, tag="constant"):
    """The rate rises linearly over `warmup` steps, then stays."""

    warmup: Count = 0


class Linear(_Part, frozen=True, tag="linear"):
    """The rate rises linearly over `warmup` steps, then falls linearly to 0 at the last step."""

    warmup: Count = 0


class Cosine(_Part, frozen=True, tag="cosine"):
    """The rate rises linearly over `warmup` steps, then falls along half a cosine to 0 (Loshchilov & Hutter 2017)."""

    warmup: Count = 0


Schedule = Constant | Linear | Cosine


class Denoising(_Part, frozen=True, tag="denoising"):
    """Mean squared error on the target of the base's scheduler (noise, or velocity for v-prediction bases).

    `min_snr_gamma`: clamp of the signal-to-noise weight (Hang et al. 2023, typically 5); none = all timesteps weigh 1.
    `noise_offset`: size of a per-channel constant added to the noise (0.05 to 0.1 where used at all).
    """

    min_snr_gamma: Positive | None = None
    noise_offset: Annotated[float, Meta(ge=0, le=1)] = 0.0


Objective = Denoising


class Preservation(_Part, frozen=True):
    """Keep the denoiser close to the base's predictions for prompts without the trigger.

    Each sample is trained once more, at another timestep, with a text without the trigger; `weight` times the mean
    squared difference between the predictions of the adapted denoiser and of the base is added to the loss
    (ai-toolkit's differential output preservation). Texts are drawn from `prompts`; no prompts = the captions of the
    manifest without their first `data.keep_tags` parts. A step takes about 2.3 times as long.
    """

    weight: Positive = 1.0
    prompts: Annotated[tuple[Annotated[str, Meta(max_length=2000)], ...], Meta(max_length=64)] = ()


class Steps(_Part, frozen=True, tag="steps"):
    """Train for `count` optimizer updates."""

    count: Natural = 1000


class Epochs(_Part, frozen=True, tag="epochs"):
    """Train for `count` passes over the manifest times repeats; the last batch of a pass may be smaller."""

    count: Natural = 10


Length = Steps | Epochs


class Data(_Part, frozen=True):
    """How images and captions are fed to the model.

    `resolution` is the side in pixels of a square of the target area; pictures keep their aspect and go to the bucket
    (sides multiples of `bucket_step` pixels, area at most `resolution` squared) whose aspect is nearest.
    A forward pass has `batch_size` images, a step `accumulate` forward passes, an epoch `repeats` times the manifest.
    `caption_dropout` is the share of samples trained with no caption (classifier-free guidance, Ho & Salimans 2022).
    `shuffle_tags` reorders the comma-separated parts of each caption, all but the first `keep_tags`.
    """

    resolution: Annotated[int, Meta(ge=8, le=4096, multiple_of=8)] = 512
    bucket_step: Annotated[int, Meta(ge=8, le=1024, multiple_of=8)] = 64
    batch_size: Annotated[int, Meta(ge=1, le=256)] = 1
    accumulate: Annotated[int, Meta(ge=1, le=1024)] = 1
    repeats: Annotated[int, Meta(ge=1, le=10_000)] = 1
    caption_dropout: Share = 0.0
    shuffle_tags: bool = False
    keep_tags: Annotated[int, Meta(ge=0, le=100)] = 1


class Sampling(_Part, frozen=True):
    """Pictures rendered while training: one for each prompt, every `every` steps (0: only at the end).

    No prompts = the first three captions of the manifest. `steps` denoising steps, classifier-free `guidance` weight.
    Sample i of every round starts from the same noise, of `seed + i`.
    """

    prompts: Annotated[tuple[Annotated[str, Meta(max_length=2000)], ...], Meta(max_length=16)] = ()
    every: Count = 0
    steps: Annotated[int, Meta(ge=1, le=200)] = 20
    guidance: Annotated[float, Meta(ge=0, le=50)] = 7.5
    seed: Seed = 0


class Save(_Part, frozen=True):
    """A checkpoint (adapter, optimizer, position in the data) every `every` steps and at the end.

    `dtype` is the number format of the finished files; checkpoints always have the training precision, so that a
    resumed run is exact.
    """

    every: Natural = 100
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"


class Recipe(_Part, frozen=True):
    """All parameters of a training.

    `precision` is that of the forward pass: `auto` is bfloat16 where a GPU has it, else float32. `max_grad_norm`
    clips the gradient of all adapter weights together (2-norm). `seed` determines initial weights, order and noise.
    `version` of this tree; recipes of older ones are upcast where events are read (`contracts.evolution`).
    """

    version: Literal[2] = RECIPE_VERSION
    base: Base = msgspec.field(default_factory=lambda: BuiltinBase(name="demo"))
    adapter: Adapter = msgspec.field(default_factory=LoRA)
    optimizer: Optimizer = msgspec.field(default_factory=AdamW)
    schedule: Schedule = msgspec.field(default_factory=Constant)
    objective: Objective = msgspec.field(default_factory=Denoising)
    preservation: Preservation | None = None
    length: Length = msgspec.field(default_factory=Steps)
    data: Data = msgspec.field(default_factory=Data)
    sampling: Sampling = msgspec.field(default_factory=Sampling)
    save: Save = msgspec.field(default_factory=Save)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_grad_norm: Positive = 1.0
    gradient_checkpointing: bool = False
    seed: Seed = 0


def validate_recipe(recipe: Recipe) -> Recipe:
    """The same recipe, validated as if decoded from JSON; Rejected names the field."""
    try:
        return msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe)
    except msgspec.ValidationError as error:
        raise Rejected(f"the recipe is not valid: {describe_decode_error(error)}") from error


def apply_changes(recipe: Recipe, changes: dict[str, object]) -> Recipe:
    """The recipe with some fields replaced, given as dotted paths (`optimizer.lr`) or nested objects.

    A nested object with another `type` replaces the whole branch; otherwise it is merged into it. Changes apply in
    order. Rejected names a field that does not exist or a value that is not valid.
    """
    for path, value in changes.items():
        recipe = _apply_change(recipe, path, value)
    return recipe


def _apply_change(recipe: Recipe, path: str, value: object) -> Recipe:
    tree = msgspec.to_builtins(recipe)
    _set_path(tree, path.split("."), value, path)
    try:
        return msgspec.convert(tree, Recipe)
    except msgspec.ValidationError as error:
        raise Rejected(f"the recipe is not valid: {describe_decode_error(error)}") from error


def _set_path(tree: dict[str, object], keys: list[str], value: object, path: str) -> None:
    key, *rest = keys
    if key not in tree:
        raise Rejected(f"a recipe has no field {path!r}")
    branch = tree[key]
    if rest:
        if not isinstance(branch, dict):
            raise Rejected(f"a recipe has no field {path!r}")
        _set_path(branch, rest, value, path)
    elif (
        isinstance(value, dict)
        and isinstance(branch, dict)
        and value.get("type", branch.get("type")) == branch.get("type")
    ):
        for name, part in value.items():
            _set_path(branch, [name], part, f"{path}.{name}")
    else:
        tree[key] = value
