"""What the tagger needs to know, from `LORATORY_*` variables."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from contracts.wire.settings import ServiceSettings


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """`models` is a folder of model folders; `work` holds pictures while they are looked at, where blobs are no files.

    `lease` in seconds as the migrate step was told; `stall` in seconds: a model that is silent for so long hangs.
    `providers` are onnxruntime's names, the first that works is taken and recorded.
    """

    nats_user: str = "tagger"
    models: Path | None = None
    work: Path = Path("work/tagger")
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: Annotated[int, Meta(ge=0, le=256)] = 0
    lease: Annotated[float, Meta(ge=1, le=3600)] = 15.0
    stall: Annotated[float, Meta(ge=1, le=86400)] = 600.0
    health_file: Path = Path("run/tagger.json")
