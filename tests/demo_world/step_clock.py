"""A clock for trainings that end by time."""


class StepClock:
    """Every training step takes the same time, so that a slow or busy machine trains as many steps as a fast one."""

    def __init__(self, *, seconds_per_step: float) -> None:
        self._now, self._seconds_per_step = 0.0, seconds_per_step

    def __call__(self) -> float:
        """Read once before a step and once after it."""
        self._now += self._seconds_per_step
        return self._now
