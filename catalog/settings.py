"""The catalog's settings, from `LORATORY_*` variables."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from contracts.wire.service.settings import ServiceSettings


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """`catalog` is the folder of the catalog's databases; `staging` the folder where the gateway stores uploads.

    `data` is the data folder that all of them are in, where `loratory up` manages one: messages name it in commands.
    `blobs` is a folder or the URL of an object store. `decoders` is the number of images decoded concurrently.
    `text_index_bytes` is the memory for searching names and captions, of all data sets together.
    `signing_key` is the file of the key that signs commits, made at the first start; by default in the folder of the
    databases. `compare_seconds`: how often stored blobs and keys are compared with what must be there.
    `patrol_seconds`: how long the patrol takes to read all blobs once. `patrol_remote_bytes`: the most it reads from an
    object store in an hour, which may cost money; 0 = nothing.
    """

    nats_user: str = "catalog"
    data: Path | None = None
    catalog: Path = Path("catalog")
    staging: Path = Path("staging")
    signing_key: Path | None = None
    decoders: Annotated[int, Meta(ge=1, le=32)] = 2
    text_index_bytes: Annotated[int, Meta(ge=2**20)] = 128 * 2**20
    compare_seconds: Annotated[float, Meta(gt=0)] = 600.0
    patrol_seconds: Annotated[float, Meta(ge=1)] = 3 * 24 * 3600.0
    patrol_remote_bytes: Annotated[int, Meta(ge=0)] = 64 << 20
    health_file: Path = Path("run/catalog.json")
