"""Signatures of commits: Ed25519 (RFC 8032) over the log's id, the subject and the body. Pure.

The body names its commit, its aggregate and the hash of the commit before, so a signature is good for one place of one
log only. A key is known by its id, the start of the sha256 of its public half. libsodium (PyNaCl) verifies in half the
time that OpenSSL takes.
"""

import binascii
import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple, Self

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError
from nacl.utils import random

HEADER = "Loratory-Signature"
"""The header of a message in the log that holds the signature."""
SIGNATURE_BYTES = 64
PRIVATE_KEY_BYTES = PUBLIC_KEY_BYTES = 32
KEY_ID_BYTES = 16


class Signature(NamedTuple):
    """As text, in the header and in the archive: `<key id>.<signature in base64url>`."""

    key_id: str
    value: bytes

    def __str__(self) -> str:
        return f"{self.key_id}.{urlsafe_b64encode(self.value).decode()}"


def parse_signature(text: str) -> Signature | None:
    """None: this is no signature."""
    key_id, _, value = text.partition(".")
    try:
        signature = Signature(key_id, urlsafe_b64decode(value))
    except (binascii.Error, ValueError):
        return None
    return signature if len(signature.value) == SIGNATURE_BYTES and str(signature) == text else None


def signed_bytes(log_id: str, subject: str, body: bytes) -> bytes:
    """What is signed. Neither a log id nor a subject contains a line break, so no two inputs give the same bytes."""
    return b"loratory commit 3\n%b\n%b\n%b" % (log_id.encode(), subject.encode(), body)


def key_id_of(public_key: bytes) -> str:
    """The id of a public key of 32 bytes."""
    return hashlib.sha256(public_key).digest()[:KEY_ID_BYTES].hex()


def is_valid(signature: Signature, public_key: bytes, message: bytes) -> bool:
    """Whether the owner of this public key (32 bytes) signed these bytes."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        return False
    try:
        crypto_sign_open(signature.value + message, public_key)
    except BadSignatureError:
        return False
    return True


class SigningKey:
    """A private key, with its public half (32 bytes) and the id under which that is registered."""

    def __init__(self, private: bytes) -> None:
        """From 32 bytes; ValueError for anything else."""
        self._private = private
        self.public, self._secret = crypto_sign_seed_keypair(private)
        self.id = key_id_of(self.public)

    @classmethod
    def generate(cls) -> Self:
        return cls(random(PRIVATE_KEY_BYTES))

    def to_bytes(self) -> bytes:
        return self._private

    def sign(self, message: bytes) -> bytes:
        return crypto_sign(message, self._secret)[:SIGNATURE_BYTES]


class OwnSignatures:
    """The last signatures that this process made: what it signed itself it need not verify when it reads it back.

    Verifying takes three times as long as signing. Signers and the verifier may run in different threads.
    """

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._made: dict[bytes, bytes] = {}
        """What was signed and by which key, as a digest, by signature."""
        self._lock = Lock()

    def add(self, value: bytes, public_key: bytes, message: bytes) -> None:
        with self._lock:
            if len(self._made) >= self._limit:
                del self._made[next(iter(self._made))]
            self._made[value] = _digest(public_key, message)

    def is_valid(self, signature: Signature, public_key: bytes, message: bytes) -> bool:
        """Like the function `is_valid`. Each signature is recognised once."""
        with self._lock:
            made = self._made.pop(signature.value, None)
        return made == _digest(public_key, message) or is_valid(signature, public_key, message)


def _digest(public_key: bytes, message: bytes) -> bytes:
    return hashlib.sha256(public_key + message).digest()  # all public keys have the same size


@dataclass(frozen=True)
class Signer:
    """Signs commits of one log with one key. `made`: notes its signatures."""

    key: SigningKey
    log_id: str
    made: OwnSignatures | None = None

    def sign(self, subject: str, body: bytes) -> str:
        """The signature of a commit, as text."""
        message = signed_bytes(self.log_id, subject, body)
        value = self.key.sign(message)
        if self.made is not None:
            self.made.add(value, self.key.public, message)
        return str(Signature(self.key.id, value))

    def has_signed(self, signature: str, subject: str, body: bytes) -> bool:
        """Whether this very key signed the commit for this log."""
        parsed = parse_signature(signature)
        if parsed is None or parsed.key_id != self.key.id:
            return False
        return is_valid(parsed, self.key.public, signed_bytes(self.log_id, subject, body))
