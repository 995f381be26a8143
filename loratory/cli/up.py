"""`loratory up`."""

import asyncio
import math
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from loratory.cli.options import Environ
from loratory.cli.output import write_line
from loratory.services import CORE_SERVICES, Service
from loratory.stack import Stack


async def up(  # noqa: PLR0913 - each is an option
    *,
    data: Path = Path("~/loratory"),
    port: int = 8000,
    host: str = "127.0.0.1",
    tagger: Annotated[bool, Parameter(help="Start a tagger.")] = True,
    trainer: Annotated[bool, Parameter(help="Start a trainer; without it, run trainers elsewhere.")] = True,
    environ: Environ,
) -> int:
    """Start all services on this machine; Ctrl-C stops them. Interrupted work resumes at the next start.

    :param data: The data folder.
    :param port: Port of the page and the API; 0 = any free one.
    :param host: Bind address. Any address that other machines can reach needs LORATORY_API_KEY.
    """
    without: list[Service] = [] if tagger else ["tagger"]
    without += [] if trainer else ["trainer"]
    try:
        async with Stack(data, environ=environ, port=port, host=host, without=without, print_line=write_line) as stack:
            # No timeout: reading a long log takes time, and the stack reports that.
            await stack.wait_ready(CORE_SERVICES, timeout=math.inf)
            write_line(f"\nLoratory is at {stack.address}  (data in {stack.data}; Ctrl-C stops it)\n")
            await stack.watch()
    except asyncio.CancelledError:
        write_line("stopped; the next start resumes interrupted work")
    return 0
