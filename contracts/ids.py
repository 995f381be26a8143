"""Ids. Each fits in one subject token, `[0-9A-Za-z_-]`, so no id can address another subject."""

import hashlib
import re
import secrets
import time
from typing import NewType

DatasetId = NewType("DatasetId", str)
ImageId = NewType("ImageId", str)
VersionId = NewType("VersionId", str)
JobId = NewType("JobId", str)
RunId = NewType("RunId", str)
PresetId = NewType("PresetId", str)
WorkerId = NewType("WorkerId", str)
CommandId = NewType("CommandId", str)
Digest = NewType("Digest", str)
"""A sha256 in lower-case hex: the address of a blob."""

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _CROCKFORD for low in _CROCKFORD]
"""Lookup table, two characters for ten bits: ids are made for every command and every commit."""
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def _crockford(number: int) -> str:
    """128 bits as 26 characters of Crockford base 32; the two highest of the 130 bits are zero."""
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -10, -10)])


def ulid() -> str:
    """A fresh ULID (https://github.com/ulid/spec): 48 bits of milliseconds, 80 random bits, 26 characters."""
    return _crockford(time.time_ns() // 1_000_000 << 80 | secrets.randbits(80))


def new_command_id() -> CommandId:
    """The id of a command sent without an Idempotency-Key: each request is a new command."""
    return CommandId(ulid())


def keyed_command_id(actor: str, key: str) -> CommandId:
    """The id of a command sent with an Idempotency-Key: the same actor and key always give the same id."""
    return CommandId("k" + _hashed("command", actor, key))


def derived(prefix: str, command_id: str, *parts: str) -> str:
    """The id of what a command creates, such as `img_…`: repeating the command yields the same id."""
    return f"{prefix}_{_hashed(prefix, command_id, *parts)}"


def worker_id(host: str, boot: str) -> WorkerId:
    """The id of one worker process: its host, and the end of the ULID of this start."""
    return WorkerId(f"{re.sub('[^0-9A-Za-z-]', '-', host)[:32] or 'host'}-{boot[-6:]}")


def is_digest(text: str) -> bool:
    return _DIGEST.match(text) is not None


def _hashed(*parts: str) -> str:
    # NUL occurs neither in HTTP header values nor in ids, so different lists of parts never join to the same bytes.
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return _crockford(int.from_bytes(digest[:16]))
