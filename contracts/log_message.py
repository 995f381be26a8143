"""A message of the log as read from the server, before it is decoded (`contracts.commits.decode_message`)."""

from datetime import UTC, datetime

import msgspec


class LogMessage(msgspec.Struct, frozen=True, gc=False):
    """A message as stored. `recorded_us`: microseconds since 1970, by the server's clock.

    `signature`: the value of its header `Loratory-Signature`, "" if it has none.
    """

    sequence: int
    recorded_us: int
    subject: str
    body: bytes
    signature: str = ""

    @property
    def recorded_at(self) -> datetime:
        return datetime.fromtimestamp(self.recorded_us / 1e6, UTC)
