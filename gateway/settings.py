"""Settings of the gateway, from `LORATORY_*` variables."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from contracts.errors import SetupError
from contracts.wire.service.settings import ServiceSettings

ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?", re.IGNORECASE | re.ASCII)
"""Scheme, host and port, without a path (RFC 6454); `*` is none: it would let every page in the browser in."""


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """`host` and `port` to listen on. `staging` is the folder for uploads, from which the catalog reads them.

    `supervision`: the file in which `loratory up` says what it waits for before it starts a service again.

    `sessions`: the file with the secret of browser sessions and the closed ones, which it writes.

    `api_key`: clients send it as `Authorization: Bearer …`; it may be empty only on a loopback address.
    `tls_cert`, `tls_key`: a certificate chain and its private key (PEM), with which it serves HTTPS.
    `cors_origins`: other sites whose pages may use the API, such as `https://studio.example`.
    """

    nats_user: str = "gateway"
    staging: Path = Path("staging")
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    api_key: str = ""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    cors_origins: tuple[str, ...] = ()
    health_file: Path = Path("run/gateway.json")
    supervision: Path | None = None
    sessions: Path = Path("run/sessions.json")

    @property
    def is_loopback(self) -> bool:
        """Is it reachable from this machine only?"""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def origins(self) -> frozenset[str]:
        """`cors_origins` as browsers send them, which is in lower case."""
        return frozenset(map(str.lower, self.cors_origins))


def refuse_unsafe(settings: Settings) -> None:
    """SetupError when others could reach it without a key, the key is too short, or another setting makes no sense."""
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise SetupError("LORATORY_TLS_CERT and LORATORY_TLS_KEY belong together: a certificate and its private key")
    if not settings.api_key and not settings.is_loopback:
        raise SetupError(
            f"LORATORY_HOST is {settings.host}, which other machines can reach: set LORATORY_API_KEY "
            "(or LORATORY_API_KEY_FILE) to a secret of at least 16 characters, or listen on 127.0.0.1"
        )
    if settings.api_key and len(settings.api_key) < 16:
        raise SetupError("LORATORY_API_KEY has fewer than 16 characters; use a longer one")
    for origin in settings.cors_origins:
        if not ORIGIN.fullmatch(origin):
            raise SetupError(f"LORATORY_CORS_ORIGINS: {origin!r} is no origin, such as https://studio.example:8443")
