"""What a fact is, and the words facts share."""

from typing import Literal

import msgspec

Sealed = bytes
Ordinals = bytes
Category = Literal["general", "character", "rating"]
Source = Literal["person", "import"]

SCHEMA = 1
"""Version of the facts in a commit written now; older ones pass through upcasters first."""
COMMIT_BYTES = 200 * 1024
"""A commit larger than this is refused when built: bulk belongs in blobs and bitmaps."""


class Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", gc=False):
    """Something that happened; past tense; immutable."""
