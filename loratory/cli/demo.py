"""`loratory demo`."""

from typing import Annotated

from cyclopts import Parameter

from loratory.cli.options import Environ
from loratory.demo import Demo, DemoOptions
from loratory.follow import ProgressWriter

DEFAULTS = DemoOptions()


async def demo(
    *,
    options: Annotated[DemoOptions, Parameter(name="*")] = DEFAULTS,
    port: int | None = None,
    serve: Annotated[bool, Parameter(negative="--no-serve")] = True,
    environ: Environ,
) -> int:
    """From images to a LoRA in one go: start Loratory, import, tag, train on the built-in base model, compare.

    :param port: Port of the page; without it, 8000 or any free one.
    :param serve: Keep serving the page when the LoRA is finished.
    """
    # Models this small gain nothing from a second thread, and lose on shared cores: 36 s instead of 124 s.
    environ = {"OMP_NUM_THREADS": "1"} | dict(environ)
    return await Demo(options, environ, ProgressWriter()).run(port=port, serve=serve)
