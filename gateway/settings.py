"""What the gateway needs to know, from `LORATORY_*` variables."""

import ipaddress
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from contracts.errors import SetupError
from contracts.wire.settings import ServiceSettings


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """`host` and `port` to listen at. `staging` is the folder uploads go to, which the catalog reads from.

    `api_key`: what clients must show as `Authorization: Bearer …`; none is allowed on a loopback address only.
    """

    nats_user: str = "gateway"
    staging: Path = Path("staging")
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    api_key: str = ""
    health_file: Path = Path("run/gateway.json")

    @property
    def loopback(self) -> bool:
        """Can only programs on this machine reach it?"""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def refuse_unsafe(settings: Settings) -> None:
    """SetupError when others could reach it without a key, or the key is one that can be guessed."""
    if not settings.api_key and not settings.loopback:
        raise SetupError(
            f"LORATORY_HOST is {settings.host}, which other machines can reach: set LORATORY_API_KEY "
            "(or LORATORY_API_KEY_FILE) to a secret of at least 16 characters, or listen at 127.0.0.1"
        )
    if settings.api_key and len(settings.api_key) < 16:
        raise SetupError("LORATORY_API_KEY has fewer than 16 characters; take a longer one")
