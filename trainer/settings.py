"""The trainer's settings, from `LORATORY_*` environment variables."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from contracts.wire.service.settings import ServiceSettings


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """`bases` holds the user's pipeline folders, `cache` latents and text embeddings, `work` files of running attempts,
    `loras` the finished ones under human-readable names.

    `lease` in seconds, the same value as in the migrate step; `stall` in seconds: an engine without progress for this
    long counts as stalled (loading a large base from a slow disk takes minutes).
    """

    nats_user: str = "trainer"
    signing_key: Path = Path("run/trainer.key")
    """The file of the key that signs commits, made at the first start. Each process has its own."""
    bases: Path = Path("bases")
    cache: Path = Path("cache")
    work: Path = Path("work/trainer")
    loras: Path = Path("loras")
    lease: Annotated[float, Meta(ge=1, le=3600)] = 15.0
    stall: Annotated[float, Meta(ge=1, le=86400)] = 1800.0
    health_file: Path = Path("run/trainer.json")
