"""When a process that died is started again. Pure."""

import msgspec

from contracts.retry import RetryPolicy


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Pauses that grow with each death in a row, without end. Times in seconds.

    `settled_after`: after it was ready for this long, the next death counts as the first one again. `disk_poll`:
    interval at which free disk space is checked, and that the files of the log are there. `low_disk`: with fewer free
    bytes, a reason says how many there are. `queue_poll`: interval at which it is checked whether the work queue is
    lost. `login_poll`: whether services of an older version were refused.
    """

    delays: RetryPolicy = RetryPolicy(first_delay=0.2, factor=2, max_delay=60)
    settled_after: float = 10.0
    disk_poll: float = 2.0
    low_disk: int = 256 << 20
    queue_poll: float = 5.0
    login_poll: float = 5.0


RESTARTS = RestartPolicy()


class RestartBackoff:
    """The delay before each restart of one process, by the number of its deaths in a row. Times: a monotonic clock."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._deaths = 0
        self._ready_since: float | None = None

    def became_ready(self, now: float) -> None:
        """The process that was started last is ready."""
        if self._ready_since is None:
            self._ready_since = now

    def next_delay(self, now: float) -> float:
        """The process died at `now`."""
        if self._ready_since is not None and now - self._ready_since >= self._policy.settled_after:
            self._deaths = 0
        self._ready_since = None
        self._deaths += 1
        return self._policy.delays.delay(self._deaths)
