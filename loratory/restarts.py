"""When a process that died is started again. Pure."""

from collections import deque

import msgspec

from contracts.retry import RetryPolicy


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A process that dies more than `maximum` times within `window` seconds is not started again.

    `disk_poll`: seconds between two looks at the disk of the nats-server.
    """

    maximum: int = 10
    window: float = 300.0
    delays: RetryPolicy = RetryPolicy(first_delay=0.2, factor=2, max_delay=10)
    disk_poll: float = 2.0


RESTARTS = RestartPolicy()


class RestartBackoff:
    """The delay before each restart of one process, by the number of its deaths within the window."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._recent: deque[float] = deque(maxlen=policy.maximum)

    def next_delay(self, now: float) -> float | None:
        """The process died at `now` (seconds of a monotonic clock). None: too many deaths, do not restart."""
        window = self._policy.window
        if len(self._recent) == self._policy.maximum and now - self._recent[0] < window:
            return None
        self._recent.append(now)
        return self._policy.delays.delay(sum(now - death < window for death in self._recent))
