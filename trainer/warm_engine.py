"""One engine process, kept running between jobs: importing torch and loading a base take seconds to a minute."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from contracts.wire.workers.heartbeat import HeartbeatPublisher
from trainer.engine_process import DEFAULT_TIMINGS, EngineProcess, EngineTimings
from trainer.messages import DeviceMemory, EngineReady

_log = structlog.get_logger()


@dataclass
class WarmEngine:
    """Starts the engine process when there is none; the heartbeat shows its device."""

    environment: Mapping[str, str]
    """Environment of this process; the engine's is derived from it."""
    heartbeat: HeartbeatPublisher
    timings: EngineTimings = DEFAULT_TIMINGS
    software: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries that it uses."""
    _process: EngineProcess | None = None

    async def start(self) -> EngineProcess:
        """An engine that accepts requests. Cancelled while it starts, the process is killed."""
        if self._process is not None and self._process.is_running:
            return self._process
        self.heartbeat.message = "importing torch"
        process = self._process = await EngineProcess.start(self.environment, self.timings)
        try:
            while not isinstance(ready := await process.next_update(), EngineReady):
                continue
        except BaseException:
            await process.kill()
            raise
        finally:
            self.heartbeat.message = ""
        self.heartbeat.device, self.software = ready.device, ready.versions
        _log.info("engine_ready", device=ready.device, seconds=round(ready.seconds, 1), pid=process.pid)
        return process

    @property
    def device_memory(self) -> DeviceMemory | None:
        """As last reported; None: no engine runs, or not on a CUDA device."""
        return self._process.memory if self._process is not None and self._process.is_running else None

    async def close(self) -> None:
        if self._process is not None:
            await self._process.close()
