"""`python -m trainer.engine`: the training process. Requests arrive on stdin, updates leave on stdout, logs on stderr.

It exits when stdin closes, even in the middle of a step, so it never outlives its parent.
"""

import os
import queue
import signal
import sys
import threading
import time
import traceback
from contextlib import closing
from importlib.metadata import version
from typing import TYPE_CHECKING, BinaryIO

from contracts.errors import LoratoryError
from contracts.wire.system.files import NO_SPACE
from contracts.wire.system.pipe import InvalidFrame
from trainer.engine_pipe import REQUESTS, UPDATES
from trainer.messages import EngineReady, EngineRequest, Finished, Loading, RequestFailed, Stop, Stopped, Train, Update

if TYPE_CHECKING:
    from trainer.engine.training import BaseCache

LIBRARIES = ("torch", "diffusers", "peft", "transformers", "accelerate", "safetensors")

_MAX_REASON_CHARS = 2000

_ENVIRONMENT = {
    # Nothing is ever downloaded from a hub, even if a folder or a library refers to one.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Keep advice about torchvision and progress bars out of the service's log.
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # By default MKL's order of summation depends on memory alignment and thread timing; with this, every run gives the
    # same bits with any number of threads (oneMKL developer guide, "Conditional Numerical Reproducibility").
    "MKL_CBWR": "AUTO,STRICT",
}


class RequestReader:
    """Reads requests from the parent: at most one queued, and a flag to stop the current one."""

    def __init__(self) -> None:
        self._requests: queue.Queue[Train] = queue.Queue(maxsize=1)
        self._stop: Stop | None = None

    def next(self) -> Train:
        """Block until there is a request."""
        return self._requests.get()

    def stop_requested(self) -> Stop | None:
        return self._stop

    def run(self, pipe: BinaryIO) -> None:
        """Read until the pipe closes, then end the process, even in the middle of a step."""
        try:
            while (request := REQUESTS.read(pipe)) is not None:
                self._accept(request)
        except (InvalidFrame, queue.Full, OSError):
            traceback.print_exc()
            os._exit(2)
        os._exit(0)

    def _accept(self, request: EngineRequest) -> None:
        match request:
            case Train():
                self._stop = None  # It was for the previous run, which has just finished.
                self._requests.put_nowait(request)
            case Stop():
                self._stop = request


class UpdateWriter:
    """Writes updates to the original stdout; file descriptor 1 is redirected to stderr for what libraries print."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def write(self, update: Update) -> None:
        UPDATES.write(self._pipe, update)


def main() -> None:
    started = time.perf_counter()
    writer, reader = UpdateWriter(), RequestReader()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent handles Ctrl-C; this process ends when its pipe closes.
    threading.Thread(target=reader.run, args=(sys.stdin.buffer,), name="requests", daemon=True).start()
    writer.write(Loading(what="libraries"))
    os.environ.update(_ENVIRONMENT)
    from trainer.engine import device, training  # noqa: PLC0415 - importing torch takes seconds; Loading is sent first

    versions = {name: version(name) for name in LIBRARIES}
    writer.write(
        EngineReady(device=device.default_device_name(), versions=versions, seconds=time.perf_counter() - started)
    )
    bases = training.BaseCache()
    while True:
        run(reader.next(), bases, versions, reader, writer)


def run(
    request: Train, bases: "BaseCache", versions: dict[str, str], reader: RequestReader, writer: UpdateWriter
) -> None:
    """Run one request and report its updates. An internal error ends the process: its state is unknown."""
    from trainer.engine.device import MemoryMeter  # noqa: PLC0415 - see main
    from trainer.engine.training import Training  # noqa: PLC0415

    training, meter = Training(request, bases, versions), MemoryMeter()
    try:
        with closing(training.updates()) as updates:
            for update in updates:
                if (memory := meter.read()) is not None:
                    writer.write(memory)
                writer.write(update)
                stop = reader.stop_requested()
                if stop is not None and not isinstance(update, Finished):
                    saved = training.save_checkpoint() if stop.save else None
                    writer.write(Stopped(step=training.step, path=saved.path if saved is not None else None))
                    return
    except Exception as error:  # the worker's edge: every error becomes a failed run
        failed = failed_update(error)
        writer.write(failed)
        if failed.code == "internal":
            traceback.print_exc()
            raise SystemExit(1) from error


def failed_update(error: Exception) -> RequestFailed:  # noqa: PLR0911 - one branch for each code
    """The update that reports an error."""
    import torch  # noqa: PLC0415 - see main

    from trainer.engine.checkpoint import BadCheckpoint  # noqa: PLC0415
    from trainer.engine.data import BadPicture  # noqa: PLC0415
    from trainer.engine.learner import Diverged  # noqa: PLC0415

    match error:
        case LoratoryError():
            return RequestFailed(code="rejected", reason=error.detail[:_MAX_REASON_CHARS])
        case BadPicture():
            return RequestFailed(code="bad-picture", reason=str(error))
        case BadCheckpoint():
            return RequestFailed(code="bad-checkpoint", reason=str(error))
        case Diverged():
            return RequestFailed(code="diverged", reason=str(error))
        case torch.OutOfMemoryError() | MemoryError():
            advice = (
                "smaller data.batch_size or data.resolution, gradient_checkpointing, or precision bfloat16 need less"
            )
            return RequestFailed(code="out-of-memory", reason=f"the device's memory is full; {advice}")
        case OSError(errno=code) if code in NO_SPACE:
            return RequestFailed(code="disk-full", reason="the disk of the trainer's folder is full")
        case RuntimeError():  # torch's message, about devices and shapes
            return RequestFailed(code="internal", reason=f"{type(error).__name__}: {error}"[:_MAX_REASON_CHARS])
        case _:  # the reason is stored for ever and must contain no caption; the trainer's log has the details
            return RequestFailed(code="internal", reason=type(error).__name__)


if __name__ == "__main__":
    main()
