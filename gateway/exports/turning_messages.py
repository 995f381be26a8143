"""What a gateway and its child process that turns pictures say to each other: a picture in parts, each way."""

import msgspec

from contracts.wire.system.pipe import Frames

PART_BYTES = 1 << 18


class Part(msgspec.Struct, frozen=True, tag="part"):
    """The next bytes of a file, at most `PART_BYTES`; none: it is complete."""

    content: bytes


class CannotTurn(msgspec.Struct, frozen=True, tag="cannot_turn"):
    """The file is not a picture that can be turned; `error` has no text of it."""

    error: str


PARTS: Frames[Part] = Frames(Part, PART_BYTES + 64)
TURNED: Frames[Part | CannotTurn] = Frames(Part | CannotTurn, PART_BYTES + 64)
