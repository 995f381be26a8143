"""Settings of the tagger, from `LORATORY_*` environment variables."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from contracts.wire.service.settings import ServiceSettings


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """`models`: a folder of model folders. `work`: temporary pictures, used where blobs are not local files.

    `lease`: ack deadline of the work queue in seconds, as passed to the migrate step. `stall`: seconds without progress
    after which a run counts as stalled. `providers`: onnxruntime's names; the first that works is used and recorded.
    `threads`: CPU threads, `decoders`: processes that read pictures; 0 = one per core.
    """

    nats_user: str = "tagger"
    signing_key: Path = Path("run/tagger.key")
    """The file of the key that signs commits, made at the first start. Each process has its own."""
    models: Path | None = None
    work: Path = Path("work/tagger")
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: Annotated[int, Meta(ge=0, le=256)] = 0
    decoders: Annotated[int, Meta(ge=0, le=256)] = 0
    lease: Annotated[float, Meta(ge=1, le=3600)] = 15.0
    stall: Annotated[float, Meta(ge=1, le=86400)] = 600.0
    health_file: Path = Path("run/tagger.json")
