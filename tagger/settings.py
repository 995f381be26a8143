"""What the tagger needs to know, from `LORATORY_*` variables."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`models` is a folder of model folders; `work` holds pictures while they are looked at, where blobs are no files.

    `lease` in seconds as the migrate step was told; `stall` in seconds: a model that is silent for so long hangs.
    `providers` are onnxruntime's names, the first that works is taken and recorded.
    """

    nats_url: str = "nats://127.0.0.1:4222"
    nats_user: str = "tagger"
    nats_password: str = ""
    blobs: str = "blobs"
    models: Path | None = None
    work: Path = Path("work/tagger")
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: Annotated[int, Meta(ge=0, le=256)] = 0
    lease: Annotated[float, Meta(ge=1, le=3600)] = 15.0
    stall: Annotated[float, Meta(ge=1, le=86400)] = 600.0
    log_level: str = "info"
    health_file: Path = Path("run/tagger.json")
