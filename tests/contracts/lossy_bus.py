"""A connection that loses messages between the server and the reader, as a bad network or a full buffer does."""

import json
from collections.abc import Callable

from contracts import subjects
from contracts.wire.service.bus import Bus
from contracts.wire.service.credentials import Credential
from contracts.wire.service.replies import Receive


class LossyBus(Bus):
    """`loses` decides about the header of each message that has one; it is asked once for each.

    `asked`: the requests with many replies that were sent.
    """

    asked: list[dict[str, object]]
    loses: Callable[[bytes], bool] = staticmethod(lambda _: False)

    async def open_stream(self, subject: str, payload: bytes, receive: Receive) -> str:
        self.asked.append(json.loads(payload))
        return await super().open_stream(subject, payload, receive)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if not (headers and self.loses(headers)):
            await super()._process_msg(sid, subject, reply, data, headers)


async def connect_lossy(url: str, role: str, credential: Credential) -> LossyBus:
    bus = LossyBus(role, credential)
    bus.asked = []
    await bus.connect(url, inbox_prefix=subjects.inbox(role), error_cb=bus.note_error, **bus.login)
    return bus


class LosesOnce:
    """Loses the first message with one of these sequences."""

    def __init__(self, *sequences: int) -> None:
        self._pending = {b"\r\nNats-Sequence: %d\r\n" % sequence for sequence in sequences}

    def __call__(self, headers: bytes) -> bool:
        lost = {text for text in self._pending if text in headers}
        self._pending -= lost
        return bool(lost)
