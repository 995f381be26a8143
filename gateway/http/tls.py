"""HTTPS with a certificate of the user's, which may be renewed while the gateway runs."""

import asyncio
import ssl
from pathlib import Path

import structlog

from contracts.errors import SetupError

POLL_SECONDS = 10.0

_log = structlog.get_logger()


class Certificate:
    """A certificate chain and its private key, as PEM files."""

    def __init__(self, cert: Path, key: Path) -> None:
        """SetupError: a file cannot be read, or they are not a certificate and its key."""
        self._cert, self._key = cert, key
        self._seen = self._stamps()
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._load(self.context)

    async def keep_current(self) -> None:
        """Takes renewed files for new connections. Those that do not fit together are left until they do."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.reload_if_changed()

    def reload_if_changed(self) -> None:
        try:
            stamps = self._stamps()
            if stamps == self._seen:
                return
            self._load(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))  # whether they are good, before they count
            self._load(self.context)
        except SetupError as error:
            _log.warning("certificate_not_renewed", reason=error.detail)
            return
        self._seen = stamps
        _log.info("certificate_renewed", cert=str(self._cert))

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise SetupError(
                f"{self._cert} and {self._key} are not a certificate and its private key without a password "
                "(LORATORY_TLS_CERT, LORATORY_TLS_KEY; PEM)"
            ) from error
        except OSError as error:
            raise SetupError(f"the certificate or its key cannot be read: {error}") from error

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        """Of both files: inode and time of change."""
        try:
            return tuple((found.st_ino, found.st_mtime_ns) for found in (self._cert.stat(), self._key.stat()))
        except OSError as error:
            raise SetupError(f"the certificate or its key cannot be read: {error}") from error


def _no_password() -> str:
    """OpenSSL would ask the terminal for one."""
    raise ValueError("the key has a password")
