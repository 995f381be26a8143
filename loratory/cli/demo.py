"""`loratory demo`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from loratory.demo import PATIENCE, PRESET, Demo
from loratory.following import Lines


async def demo(  # noqa: PLR0913 - each is an option
    *,
    data: Path = Path("~/loratory-demo"),
    serve: Annotated[
        bool, Parameter(negative="--no-serve", help="Go on serving the page when the LoRA is made.")
    ] = True,
    images: Path | None = None,
    steps: int | None = None,
    seed: int = 0,
    preset: str = PRESET,
    port: int | None = None,
    patience: float = PATIENCE,
    environ: Annotated[Mapping[str, str], Parameter(parse=False)],
) -> int:
    """From pictures to a LoRA in one go: start the workshop, import, tag, train on the built-in base, compare.

    Parameters
    ----------
    data:
        Where everything is kept.
    images:
        Your own pictures; without, a dozen are drawn.
    steps:
        Train for so many steps.
    seed:
        Of the drawn pictures and of the training; another one is another data set.
    preset:
        How to train, and on which base.
    port:
        Port of the page; without, 8000 or a free one.
    patience:
        Seconds to wait for a tagger or trainer that does not come.
    """
    work = Demo(data, environ, Lines(), images=images, steps=steps, seed=seed, preset=preset, patience=patience)
    return await work.run(port=port, serve=serve)
