"""`loratory up`."""

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from loratory.cli.common import say
from loratory.services import SERVE, Service
from loratory.stack import Stack


async def up(  # noqa: PLR0913 - each is an option
    *,
    data: Path = Path("~/loratory"),
    port: int = 8000,
    host: str = "127.0.0.1",
    tagger: Annotated[bool, Parameter(help="Start a tagger here.")] = True,
    trainer: Annotated[bool, Parameter(help="Start a trainer here; without, run trainers elsewhere.")] = True,
    environ: Annotated[Mapping[str, str], Parameter(parse=False)],
) -> int:
    """Start the whole workshop on this machine; Ctrl-C ends it. Started again, it goes on where it stopped.

    Parameters
    ----------
    data:
        Where everything is kept.
    port:
        Port of the page and the API; 0 takes a free one.
    host:
        Address to listen at. Anything but this machine itself needs LORATORY_API_KEY.
    """
    without: list[Service] = [] if tagger else ["tagger"]
    without += [] if trainer else ["trainer"]
    try:
        async with Stack(data, environ=environ, port=port, host=host, without=without, say=say) as stack:
            await stack.wait_ready(SERVE, timeout=math.inf)  # a long log takes its time, and the stack says so
            say(f"\nLoratory is at {stack.address}  (data in {stack.data}; Ctrl-C ends it)\n")
            await stack.watch()
    except asyncio.CancelledError:
        say("ended; start it again and it goes on")
    return 0
