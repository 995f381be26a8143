"""Stores the losses of an attempt in blocks. The bus may be unavailable meanwhile: blocks are then sent later."""

import time
from collections import deque
from dataclasses import dataclass, field

from contracts.errors import Unavailable
from contracts.ids import JobId
from contracts.retry import Outage
from contracts.telemetry import BLOCK_STEPS, LossBlock
from contracts.wire.service.bus import Bus
from contracts.wire.service.telemetry import store_loss_block
from trainer.messages import Stepped

FLUSH_SECONDS = 3.0
"""Maximum age of losses that are not stored yet: a page opened later does not see them."""
MAX_UNSENT_BLOCKS = 1000
"""Maximum loss blocks buffered while the bus is unavailable; beyond this the oldest are dropped."""


@dataclass
class LossCurve:
    """Call `add` with each step, and `flush` when no more steps follow for a while."""

    bus: Bus
    job_id: JobId
    attempt: int
    _steps: list[Stepped] = field(default_factory=list)
    _unsent: deque[LossBlock] = field(default_factory=lambda: deque(maxlen=MAX_UNSENT_BLOCKS))
    _last_flush: float = field(default_factory=time.monotonic)
    _outage: Outage = field(default_factory=lambda: Outage("loss_blocks_delayed"))

    async def add(self, stepped: Stepped) -> None:
        self._steps.append(stepped)
        if len(self._steps) >= BLOCK_STEPS or time.monotonic() - self._last_flush >= FLUSH_SECONDS:
            await self.flush()

    async def flush(self) -> None:
        """Store the losses since the last block, and blocks buffered while the bus was unavailable."""
        if self._steps:
            self._unsent.append(
                LossBlock(
                    job_id=self.job_id,
                    attempt=self.attempt,
                    first=self._steps[0].step,
                    losses=tuple(stepped.loss for stepped in self._steps),
                    rates=tuple(stepped.lr for stepped in self._steps),
                )
            )
            self._steps = []
        self._last_flush = time.monotonic()
        try:
            while self._unsent:
                await store_loss_block(self.bus, self._unsent[0])
                self._unsent.popleft()
                self._outage.ended()
        except Unavailable as error:
            self._outage.begun(error, blocks=len(self._unsent))
