"""Sort orders of images, as values; `contracts/filter_text.py` has the form that people type. Pure."""

from typing import Literal, TypeAlias

import msgspec

from contracts.filters import TagText

SortKey = Literal["added", "name", "size", "changed", "tags"]


class SortBy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag="sort"):
    """By order of import; file name (2 before 10); bytes of the file; last change; or number of tags."""

    key: SortKey = "added"
    descending: bool = False

    def describe(self) -> str:
        by = {
            "added": "order of import",
            "name": "name",
            "size": "file size",
            "changed": "last change",
            "tags": "number of tags",
        }
        return f"by {by[self.key]}{_DIRECTION[self.descending]}"


class SortByConfidence(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag="confidence"
):
    """By the highest current prediction of a tag; without one it is 0."""

    tag: TagText
    descending: bool = False

    def describe(self) -> str:
        return f"by confidence of {self.tag}{_DIRECTION[self.descending]}"


Sort: TypeAlias = SortBy | SortByConfidence
_DIRECTION = {False: "", True: ", descending"}
