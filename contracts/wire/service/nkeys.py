"""NKeys: the Ed25519 keys with which clients authenticate to NATS. The server knows only the public half.

A seed is 32 bytes, written in base32 with a prefix that says what it is for and a checksum, as NATS's tools write it.
"""

import base64
import binascii
import contextlib
import re
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contracts.errors import SetupError

SEED_PREFIX = bytes([18 << 3 | 20 >> 2, (20 & 3) << 6])
"""`SU`: the seed of a user."""
USER_PREFIX = bytes([20 << 3])
SEED_BYTES = 32


class Nkey:
    """One user's key."""

    def __init__(self, seed: bytes) -> None:
        """`seed`: 32 bytes."""
        self._seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def seed(self) -> str:
        """As in a seed file: `SU…`."""
        return _encode(SEED_PREFIX, self._seed)

    @property
    def public(self) -> str:
        """As in the server's configuration: `U…`."""
        return _encode(USER_PREFIX, self._private.public_key().public_bytes_raw())

    def sign(self, nonce: str) -> bytes:
        """The signature of the server's challenge, in base64."""
        return base64.b64encode(self._private.sign(nonce.encode()))


def generate_nkey() -> Nkey:
    return Nkey(secrets.token_bytes(SEED_BYTES))


def parse_seed(text: str, source: Path) -> Nkey:
    """SetupError, which names the file but not its content: this is not the seed of a user."""
    raw = b""
    with contextlib.suppress(ValueError):
        raw = base64.b32decode(text.strip() + "=" * (-len(text.strip()) % 8))
    body, checksum = raw[:-2], raw[-2:]
    if len(body) != len(SEED_PREFIX) + SEED_BYTES or not body.startswith(SEED_PREFIX) or checksum != _checksum(body):
        raise SetupError(f"{source} does not contain the seed of an nkey (SU…)")
    return Nkey(body[len(SEED_PREFIX) :])


def read_seed_file(file: Path) -> Nkey:
    """SetupError: it cannot be read, or is no seed."""
    return parse_seed(_read(file), file)


def read_credentials_file(file: Path) -> tuple[str, Nkey]:
    """The JWT and the key in a `.creds` file, as a managed NATS hands it out. SetupError: it has not both."""
    text = _read(file)
    parts = dict(re.findall(r"-+BEGIN ([A-Z ]+)-+\s+(\S+)\s+-+END", text))
    jwt, seed = parts.get("NATS USER JWT"), parts.get("USER NKEY SEED")
    if jwt is None or seed is None:
        raise SetupError(f"{file} is not a credentials file: it has no user JWT with an nkey seed")
    return jwt, parse_seed(seed, file)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"the key file {file} cannot be read: {error}") from error


def _encode(prefix: bytes, key: bytes) -> str:
    body = prefix + key
    return base64.b32encode(body + _checksum(body)).decode().rstrip("=")


def _checksum(body: bytes) -> bytes:
    """CRC-16 of XMODEM."""
    return binascii.crc_hqx(body, 0).to_bytes(2, "little")
