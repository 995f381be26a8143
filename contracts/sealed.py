"""Private text (file names, captions, notes) as it stands in events: AES-256-GCM under the random key of its image.

When the key is gone the text is gone, and log and archive stay as they are. Hashes are taken over sealed bytes.
"""

import hmac
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from contracts.errors import LoratoryError

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16


class NotOpened(LoratoryError):
    """The sealed text does not open: another key, another place, or damaged bytes."""

    code = "sealed"


def new_key() -> bytes:
    """A fresh random key for one image, 32 bytes; it lives in `keys.db` and nowhere else."""
    return secrets.token_bytes(KEY_BYTES)


def seal(key: bytes, text: str, context: str) -> bytes:
    """Nonce (12 bytes), ciphertext, tag (16 bytes). `context` says what it is ("caption"); it must open as the same.

    The same key, text and context always give the same bytes, so a version frozen again has the same digest. Two texts
    share a nonce only if their HMAC-SHA256 collides in 96 bits; what equal bytes tell is that a text came back.
    """
    plain, bound = text.encode(), context.encode()
    nonce = _nonce(key, plain, bound)
    return nonce + AESGCM(_checked(key)).encrypt(nonce, plain, bound)


def open_sealed(key: bytes, sealed: bytes, context: str) -> str:
    """The text again; NotOpened for a wrong key, a wrong context or bytes that were changed."""
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise NotOpened(f"the sealed {context} is too short to be one")
    nonce, box = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        return AESGCM(_checked(key)).decrypt(nonce, box, context.encode()).decode()
    except InvalidTag as error:
        raise NotOpened(f"the sealed {context} does not open: another key, another place, or damaged bytes") from error


def _nonce(key: bytes, plain: bytes, bound: bytes) -> bytes:
    # The length in front keeps ("ab", "c") apart from ("a", "bc").
    message = b"nonce" + len(bound).to_bytes(4) + bound + plain
    return hmac.digest(_checked(key), message, "sha256")[:NONCE_BYTES]


def _checked(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key is {KEY_BYTES} bytes, not {len(key)}")
    return key
