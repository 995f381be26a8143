"""NKeys: the Ed25519 keys with which clients authenticate to NATS. The server knows only the public half.

A seed is 32 bytes, written in base32 with a prefix that says what it is for and a checksum, as NATS's tools write it.
"""

import base64
import binascii
import contextlib
import secrets

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

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


def parse_seed(text: str) -> Nkey:
    """ValueError, which does not show the text: it is not the seed of a user."""
    raw, text = b"", text.strip()
    with contextlib.suppress(ValueError):
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    body, checksum = raw[:-2], raw[-2:]
    if len(body) != len(SEED_PREFIX) + SEED_BYTES or not body.startswith(SEED_PREFIX) or checksum != _checksum(body):
        raise ValueError("not the seed of an nkey (SU…)")
    return Nkey(body[len(SEED_PREFIX) :])


def _encode(prefix: bytes, key: bytes) -> str:
    body = prefix + key
    return base64.b32encode(body + _checksum(body)).decode().rstrip("=")


def _checksum(body: bytes) -> bytes:
    """CRC-16 of XMODEM."""
    return binascii.crc_hqx(body, 0).to_bytes(2, "little")
