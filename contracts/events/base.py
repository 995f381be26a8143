"""The base class of events, and types they share."""

from typing import Literal

import msgspec

Sealed = bytes
Category = Literal["general", "character", "rating"]
TextKind = Literal["tags", "caption"]
"""What a text beside the file of an image is read as."""
ReadAs = Literal["auto", "tags", "caption"]
"""The same, or as the rule of `contracts.texts` says."""
Source = Literal["person", "import"]

SCHEMA = 1
"""Schema version of events written now; older ones are upcast when read."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", gc=False):
    """Something that happened; named in the past tense; immutable."""

    @property
    def type_name(self) -> str:
        """The name in the log: `job.queued`."""
        return str(self.__struct_config__.tag)

    def describe(self) -> str:
        """What happened, as a sentence without a full stop and without private text: `Added tags solo to 12 images`.

        File names and captions are sealed and never appear in it. Data set names, tags, triggers and the reasons of
        failures are not private text.
        """
        return self.type_name.replace(".", ": ", 1).replace("_", " ").capitalize()
