"""`loratory demo`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from loratory.cli.options import Environ
from loratory.demo import PRESET, WORKER_TIMEOUT_SECONDS, Demo
from loratory.follow import ProgressWriter


async def demo(  # noqa: PLR0913 - each is an option
    *,
    data: Path = Path("~/loratory-demo"),
    serve: Annotated[
        bool, Parameter(negative="--no-serve", help="Keep serving the page when the LoRA is finished.")
    ] = True,
    images: Path | None = None,
    steps: int | None = None,
    seed: int = 0,
    preset: str = PRESET,
    port: int | None = None,
    worker_timeout: float = WORKER_TIMEOUT_SECONDS,
    environ: Environ,
) -> int:
    """From images to a LoRA in one go: start Loratory, import, tag, train on the built-in base model, compare.

    Parameters
    ----------
    data:
        The data folder.
    images:
        Your own images; without it, a dozen are drawn.
    steps:
        Number of training steps.
    seed:
        Seed of the drawn images and of the training; each seed has its own data set.
    preset:
        The recipe, including the base model.
    port:
        Port of the page; without it, 8000 or any free one.
    worker_timeout:
        Seconds to wait for a tagger or trainer to connect.
    """
    run = Demo(
        data,
        environ,
        ProgressWriter(),
        images=images,
        steps=steps,
        seed=seed,
        preset=preset,
        worker_timeout=worker_timeout,
    )
    return await run.run(port=port, serve=serve)
