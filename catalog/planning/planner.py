"""Where plans are made: those of large data sets in a child process, so that requests do not wait for them."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog

from catalog.pending import Planned
from catalog.planning.messages import PLANS, REQUESTS, PlanRequest
from catalog.store import Store
from catalog.views import size_of
from catalog.views.predicted_tags import ApplyRules, PredictAgain, PredictedTags
from contracts.wire.system.child import PipedChild
from contracts.wire.system.pipe import PipeError

_log = structlog.get_logger(__name__)


class PlanLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`images`: maximum number of images of a data set whose plans are made in this process. `seconds` for a plan."""

    images: int = 10_000
    seconds: float = 60.0


DEFAULT_PLAN_LIMITS = PlanLimits()


class Planner:
    """`async with Planner(store)`: makes the plans of this read model.

    The child starts with the first plan, which takes it half a second, and stays for the next ones. Where it fails, the
    plan is made here.
    """

    def __init__(self, store: Store, limits: PlanLimits = DEFAULT_PLAN_LIMITS) -> None:
        self._store, self._limits = store, limits
        self._child: PipedChild | None = None

    async def __aenter__(self) -> "Planner":
        self._store.make_plan = self.make
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._child is not None:
            await self._child.kill()

    async def make(self, step: Planned) -> object:
        if isinstance(step, ApplyRules | PredictAgain):
            images = await self._store.read(lambda connection: size_of(connection, step.dataset_id))
            if images > self._limits.images:
                try:
                    return await self._make_in_child(step)
                except (TimeoutError, PipeError, OSError) as error:
                    _log.warning("plan_not_made_in_child", dataset=step.dataset_id, error=repr(error))
        return await self._store.read(step.plan)

    async def _make_in_child(self, step: ApplyRules | PredictAgain) -> PredictedTags:
        async with self._store.snapshot_elsewhere() as path, self._running_child() as child:
            async with asyncio.timeout(self._limits.seconds):
                await child.send(REQUESTS.encode(PlanRequest(read_model=str(path), step=step)))
                return await child.receive(PLANS)

    @asynccontextmanager
    async def _running_child(self) -> AsyncIterator[PipedChild]:
        """Killed after a failure, also when cancelled: the next message would be the late plan."""
        if self._child is None or not self._child.is_running:
            self._child = await PipedChild.start((sys.executable, "-m", "catalog.planning.child"))
        try:
            yield self._child
        except BaseException:
            await self._child.kill()
            raise
