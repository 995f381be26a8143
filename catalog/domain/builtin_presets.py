"""The built-in presets. Their names are reserved. Pure."""

from dataclasses import dataclass

from msgspec.structs import replace

from contracts.recipe import (
    Adafactor,
    AdamW,
    BuiltinBase,
    Cosine,
    Data,
    FolderBase,
    LoRA,
    Preservation,
    Recipe,
    Sampling,
    Save,
    Steps,
)

OWN = "own"
"""The category of presets saved by users."""


@dataclass(frozen=True, kw_only=True)
class BuiltinPreset:
    name: str
    description: str
    category: str
    recipe: Recipe


SD15 = FolderBase(path="stable-diffusion-v1-5")
"""The folder of that name among the trainer's bases; override it with the change `base`."""

_SD15_LORA = Recipe(
    base=SD15,
    adapter=LoRA(rank=16, alpha=8.0),
    optimizer=AdamW(lr=1e-4),
    schedule=Cosine(warmup=50),
    length=Steps(count=1500),
    data=Data(resolution=512, bucket_step=64, caption_dropout=0.05, shuffle_tags=True, keep_tags=1),
    sampling=Sampling(every=250),
    save=Save(every=250, dtype="float16"),
)

_DEMO_WORLD = (
    "a big red circle, smiling, in the middle, blue background",
    "a small striped teal square, on the left, grey background with hills",
    "two small orange triangles, in the middle, purple background",
    "a big spotted yellow star, surprised, in the middle, dark background with clouds",
    "heart, pink, one, small, right, green background, flowers",
    "three small white moons, in the middle, teal background with stars",
    "flower, purple, one, striped, sleeping, big, middle, orange background",
    "a small blue drop, smiling, on the right, yellow background with waves",
    "a big brown creature with a round body, long ears, short legs, smiling, in the middle, green background",
    "creature, white, pointy ears, square body, long legs, curly tail, sleeping, small, left, dark background",
    "a small striped red creature with a tall body, round ears, short legs, surprised, on the right, pink background",
    "creature, yellow, horns, round body, short legs, fluffy tail, spotted, smiling, big, middle, purple background",
    "a big teal creature with a square body, antennae, long legs, in the middle, orange background with hills",
    "creature, blue, long ears, tall body, short legs, striped, surprised, small, middle, grey background, waves",
    "a small purple creature with a round body, pointy ears, long legs, curly tail, on the left, teal background",
    "creature, orange, round ears, square body, short legs, spotted, smiling, big, middle, blue background, clouds",
    "a big pink creature with a tall body, horns, long legs, surprised, in the middle, yellow background with flowers",
    "creature, green, antennae, round body, short legs, fluffy tail, sleeping, small, right, grey background, stars",
)
"""Prompts that cover every shape, kind of creature and colour of the demo base: what a LoRA must leave unchanged."""

_DEMO = Recipe(
    base=BuiltinBase(name="demo"),
    adapter=LoRA(rank=8, alpha=8.0, layers="transformer"),
    optimizer=AdamW(lr=1.2e-3),
    schedule=Cosine(warmup=20),
    preservation=Preservation(prompts=_DEMO_WORLD),
    length=Steps(count=550),
    data=Data(resolution=64, bucket_step=8, batch_size=4),
    sampling=Sampling(every=200, steps=20, guidance=3.0),
    save=Save(every=200),
)
"""For the demo world's base: without `min_snr_gamma`, which would weight its noisiest steps to zero."""

PRESETS: tuple[BuiltinPreset, ...] = (
    BuiltinPreset(
        name="quick",
        description="A first look on an SD 1.5 base: low rank, small pictures, a few minutes on a GPU.",
        category="quick",
        recipe=Recipe(
            base=SD15,
            adapter=LoRA(rank=4, alpha=4.0),
            optimizer=AdamW(lr=3e-4),
            schedule=Cosine(warmup=20),
            length=Steps(count=300),
            data=Data(resolution=384, bucket_step=64),
            save=Save(every=100, dtype="float16"),
        ),
    ),
    BuiltinPreset(
        name="sd15-lora",
        description="A character, object or style on an SD 1.5 base, from 10 to 100 pictures.",
        category="sd15",
        recipe=_SD15_LORA,
    ),
    BuiltinPreset(
        name="sd15-low-memory",
        description="Like sd15-lora with less memory: Adafactor, gradient checkpointing, rank 8.",
        category="sd15",
        recipe=replace(
            _SD15_LORA, adapter=LoRA(rank=8, alpha=4.0), optimizer=Adafactor(lr=1e-3), gradient_checkpointing=True
        ),
    ),
    BuiltinPreset(
        name="demo",
        description="The built-in demo base learns a creature from a dozen pictures of 64 px, on a CPU in a minute.",
        category="demo",
        recipe=_DEMO,
    ),
    BuiltinPreset(
        name="tiny-random-demo",
        description="A base of random weights on a CPU: tries every step, learns next to nothing.",
        category="demo",
        recipe=Recipe(
            base=BuiltinBase(name="tiny-random"),
            adapter=LoRA(rank=8, alpha=4.0),
            optimizer=AdamW(lr=1e-3),
            length=Steps(count=200),
            data=Data(resolution=96, bucket_step=8, batch_size=2),
            sampling=Sampling(every=100, steps=8, guidance=3.0),
            save=Save(every=50),
        ),
    ),
)

BY_NAME: dict[str, BuiltinPreset] = {preset.name: preset for preset in PRESETS}
