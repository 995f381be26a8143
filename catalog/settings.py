"""What the catalog needs to know, from `LORATORY_*` variables."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from contracts.wire.settings import ServiceSettings


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """`catalog` is the folder of the catalog's own databases; `staging` where the gateway leaves uploads.

    `blobs` is a folder or the address of an object store. `decoders` is how many pictures are decoded at once. `lease`
    in seconds as the migrate step was told: a queue that was lost is made anew with it.
    """

    nats_user: str = "catalog"
    catalog: Path = Path("catalog")
    staging: Path = Path("staging")
    decoders: Annotated[int, Meta(ge=1, le=32)] = 2
    lease: Annotated[float, Meta(ge=1, le=3600)] = 15.0
    health_file: Path = Path("run/catalog.json")
