"""The base class of events, and types they share."""

from typing import Literal

import msgspec

Sealed = bytes
Ordinals = bytes
Category = Literal["general", "character", "rating"]
Source = Literal["person", "import"]

SCHEMA = 1
"""Schema version of events written now; older ones are upcast when read."""
COMMIT_BYTES = 200 * 1024
"""Maximum size of a commit in bytes, checked before it is appended: bulk data belongs in blobs and bitmaps."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", gc=False):
    """Something that happened; named in the past tense; immutable."""
