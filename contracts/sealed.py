"""Sealing of private text (file names, captions, notes) in events: AES-256-GCM under the random key of its image.

Deleting the key destroys the text while log and archive stay unchanged. Hashes are computed over sealed bytes.
"""

import hmac
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from contracts.errors import LoratoryError

NAME = "name"
"""Sealing context of file names."""
CAPTION = "caption"
"""Sealing context of captions, in events and in manifests."""
TEXT = "text"
"""Sealing context of texts as received beside the files of images."""

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16


class NotOpened(LoratoryError, code="sealed"):
    """The sealed text cannot be decrypted: wrong key, wrong context, or damaged bytes."""


def new_key() -> bytes:
    """A new random key for one image, 32 bytes; it is stored in `keys.db` only."""
    return secrets.token_bytes(KEY_BYTES)


def seal(key: bytes, text: str, context: str) -> bytes:
    """Nonce (12 bytes), ciphertext, tag (16 bytes). `context` names the field ("caption") and must match when opening.

    The same key, text and context always give the same bytes, so a version frozen again has the same digest. Two texts
    share a nonce only if their HMAC-SHA256 collides in 96 bits; equal bytes reveal only a repeated text.
    """
    plain, bound = text.encode(), context.encode()
    nonce = _nonce(key, plain, bound)
    return nonce + AESGCM(_checked(key)).encrypt(nonce, plain, bound)


def open_sealed(key: bytes, sealed: bytes, context: str) -> str:
    """The plain text. NotOpened for a wrong key, a wrong context or changed bytes."""
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise NotOpened(f"the sealed {context} is too short")
    nonce, box = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        return AESGCM(_checked(key)).decrypt(nonce, box, context.encode()).decode()
    except InvalidTag as error:
        raise NotOpened(
            f"the sealed {context} cannot be decrypted: wrong key, wrong context, or damaged bytes"
        ) from error


def _nonce(key: bytes, plain: bytes, bound: bytes) -> bytes:
    # The length in front keeps ("ab", "c") apart from ("a", "bc").
    message = b"nonce" + len(bound).to_bytes(4) + bound + plain
    return hmac.digest(_checked(key), message, "sha256")[:NONCE_BYTES]


def _checked(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key is {KEY_BYTES} bytes, not {len(key)}")
    return key
