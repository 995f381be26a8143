"""What the catalog needs to know, from `LORATORY_*` variables."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`catalog` is the folder of the catalog's own databases; `staging` where the gateway leaves uploads.

    `blobs` is a folder or the address of an object store. `decoders` is how many pictures are decoded at once.
    """

    nats_url: str = "nats://127.0.0.1:4222"
    nats_user: str = "catalog"
    nats_password: str = ""
    blobs: str = "blobs"
    catalog: Path = Path("catalog")
    staging: Path = Path("staging")
    decoders: Annotated[int, Meta(ge=1, le=32)] = 2
    log_level: str = "info"
    health_file: Path = Path("run/catalog.json")
