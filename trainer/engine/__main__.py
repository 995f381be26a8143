"""`python -m trainer.engine`: the child. Orders come in by stdin, updates go out by stdout, all else to stderr.

It ends when stdin closes, also in the middle of a step, so it never outlives its parent.
"""

import errno
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
from trainer import messages
from trainer.messages import Failed, Loading, Ready, Stop, Stopped, Train, Update

if TYPE_CHECKING:
    from trainer.engine.training import Bases

LIBRARIES = ("torch", "diffusers", "peft", "transformers", "accelerate", "safetensors")

_REASON = 2000
"""Characters of a reason at most."""

_OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT}
_ENVIRONMENT = {
    # Nothing is ever fetched from a hub, whatever a folder or a library asks for.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Advice about torchvision and loading bars are not for the log of a service.
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # MKL adds in another order when memory lies otherwise or a thread comes late; so each run gives the same bits, with
    # any number of threads (oneMKL developer guide, "Conditional Numerical Reproducibility").
    "MKL_CBWR": "AUTO,STRICT",
}


class Mailbox:
    """What came from the parent: at most one order that waits, and the wish to stop the one at hand."""

    def __init__(self) -> None:
        self._orders: queue.Queue[Train] = queue.Queue(maxsize=1)
        self._stop: Stop | None = None

    def next(self) -> Train:
        return self._orders.get()

    def stop(self) -> Stop | None:
        return self._stop

    def read(self, pipe: BinaryIO) -> None:
        """Sort what comes, until the pipe closes; then end the process, whatever it is doing."""
        try:
            while (order := messages.next_order(pipe)) is not None:
                self._sort(order)
        except (messages.BadFrame, queue.Full, OSError):
            traceback.print_exc()
            os._exit(2)
        os._exit(0)

    def _sort(self, order: messages.Order) -> None:
        match order:
            case Train():
                self._stop = None  # It was meant for the order before, which was just done.
                self._orders.put_nowait(order)
            case Stop():
                self._stop = order


class Outbox:
    """The real stdout, taken away from the libraries: what they print goes to stderr."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def tell(self, update: Update) -> None:
        self._pipe.write(messages.frame(update))
        self._pipe.flush()


def main() -> None:
    started = time.perf_counter()
    outbox, mailbox = Outbox(), Mailbox()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means.
    threading.Thread(target=mailbox.read, args=(sys.stdin.buffer,), name="orders", daemon=True).start()
    outbox.tell(Loading(what="libraries"))
    os.environ.update(_ENVIRONMENT)
    from trainer.engine import machine, training  # noqa: PLC0415 - seconds of torch, after we have said so

    versions = {name: version(name) for name in LIBRARIES}
    outbox.tell(Ready(device=machine.best_device(), versions=versions, seconds=time.perf_counter() - started))
    bases = training.Bases()
    while True:
        serve(mailbox.next(), bases, versions, mailbox, outbox)


def serve(order: Train, bases: "Bases", versions: dict[str, str], mailbox: Mailbox, outbox: Outbox) -> None:
    """Carry out one order, telling as it goes. A fault of our own ends the child: who knows what state it is in."""
    from trainer.engine.training import Training  # noqa: PLC0415 - see main

    training = Training(order, bases, versions)
    try:
        with closing(training.updates()) as updates:
            for update in updates:
                outbox.tell(update)
                stop = mailbox.stop()
                if stop is not None and not isinstance(update, messages.Finished):
                    saved = training.keep() if stop.save else None
                    outbox.tell(Stopped(step=training.step, path=saved.path if saved is not None else None))
                    return
    except Exception as error:  # the worker's edge: whatever it is becomes a failed run
        failed = failure(error)
        outbox.tell(failed)
        if failed.code == "internal":
            traceback.print_exc()
            raise SystemExit(1) from error


def failure(error: Exception) -> Failed:  # noqa: PLR0911 - one arm for each code
    """What the parent is told of an error."""
    import torch  # noqa: PLC0415 - see main

    from trainer.engine.checkpoint import BadCheckpoint  # noqa: PLC0415
    from trainer.engine.data import BadPicture  # noqa: PLC0415
    from trainer.engine.learner import Diverged  # noqa: PLC0415

    match error:
        case LoratoryError():
            return Failed(code="rejected", reason=error.detail[:_REASON])
        case BadPicture():
            return Failed(code="bad-picture", reason=str(error))
        case BadCheckpoint():
            return Failed(code="bad-checkpoint", reason=str(error))
        case Diverged():
            return Failed(code="diverged", reason=str(error))
        case torch.OutOfMemoryError() | MemoryError():
            advice = (
                "smaller data.batch_size or data.resolution, gradient_checkpointing, or precision bfloat16 need less"
            )
            return Failed(code="out-of-memory", reason=f"the device's memory is full; {advice}")
        case OSError(errno=code) if code in _OUT_OF_SPACE:
            return Failed(code="disk-full", reason="the disk of the trainer's folder is full")
        case RuntimeError():  # torch's own words, about devices and shapes
            return Failed(code="internal", reason=f"{type(error).__name__}: {error}"[:_REASON])
        case _:  # the reason is kept for ever and must hold no caption; the trainer's log says more
            return Failed(code="internal", reason=type(error).__name__)


if __name__ == "__main__":
    main()
