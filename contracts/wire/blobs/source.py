"""The bytes of an image as received, where only its picture and what was cut from it are stored."""

import asyncio
import hashlib

from contracts.ids import Digest
from contracts.jpeg_cut import NotRebuildable, rebuild
from contracts.wire.blobs.io import Damaged
from contracts.wire.blobs.store import Blobs


async def read_source(blobs: Blobs, source: Digest, *, picture: Digest, cut: Digest) -> bytes:
    """Verified against `source`; Damaged if it differs. NotFound: a blob is missing."""
    return await asyncio.to_thread(_verified, source, await blobs.get(picture), await blobs.get(cut))


def _verified(source: Digest, picture: bytes, cut: bytes) -> bytes:
    try:
        content = rebuild(picture, cut)
    except NotRebuildable as error:
        raise Damaged(str(error)) from error
    if hashlib.sha256(content).hexdigest() != source:
        raise Damaged("picture and cut no longer give the file that was received")
    return content
