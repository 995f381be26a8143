"""A connection that loses messages between the server and the reader, as a bad network or a full buffer does."""

from collections.abc import Callable

from contracts import subjects
from contracts.wire.service.bus import Bus


class LossyBus(Bus):
    """`loses` decides about the header of each message that has one; it is asked once for each."""

    loses: Callable[[bytes], bool] = staticmethod(lambda _: False)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if not (headers and self.loses(headers)):
            await super()._process_msg(sid, subject, reply, data, headers)


async def connect_lossy(url: str, user: str, password: str) -> LossyBus:
    bus = LossyBus(user)
    await bus.connect(url, user=user, password=password, inbox_prefix=subjects.inbox(user), error_cb=bus.note_error)
    return bus


class LosesOnce:
    """Loses the first message with one of these sequences."""

    def __init__(self, *sequences: int) -> None:
        self._pending = {b"\r\nNats-Sequence: %d\r\n" % sequence for sequence in sequences}

    def __call__(self, headers: bytes) -> bool:
        lost = {text for text in self._pending if text in headers}
        self._pending -= lost
        return bool(lost)
