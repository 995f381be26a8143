"""The exports that are open at once, each read and then sent."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

import structlog

from contracts.errors import LoratoryError, Unavailable
from contracts.queries.exports import ReadExport
from gateway.clients import CatalogClient
from gateway.exports.archive import ExportStream
from gateway.exports.plan import Plan, Planner
from gateway.exports.upright import Turner
from gateway.http.files import BlobFiles

CONCURRENTLY_TURNED = 1
"""Pictures that are turned upright at once: each may take hundreds of megabytes, in a process of its own."""

_log = structlog.get_logger()


class Exports:
    """At most `maximum` at once."""

    def __init__(self, catalog: CatalogClient, files: BlobFiles, maximum: int) -> None:
        self._catalog, self._files, self._maximum = catalog, files, maximum
        self._open = 0
        self._turning = asyncio.Semaphore(CONCURRENTLY_TURNED)

    async def read(self, plan: Plan, query: ReadExport) -> None:
        """Fill a plan. Unavailable: too many exports are open; or an error of `Planner.read`."""
        if self._open >= self._maximum:
            raise Unavailable(f"{self._maximum} exports are running already; try again later", service="gateway")
        with self._counted():
            await Planner(catalog=self._catalog, files=self._files, plan=plan).read(query)

    async def stream(self, plan: Plan) -> AsyncGenerator[bytes, None]:
        """The bytes of a plan that was read. When it is closed, nothing more is read."""
        with self._counted():
            async with Turner(self._turning) as turner, aclosing(self._chunks(plan, turner)) as chunks:
                try:
                    async for chunk in chunks:
                        yield chunk
                except LoratoryError as error:
                    # The client sees only that the connection ends before the file does.
                    await _log.aerror("export_broken", dataset_id=plan.origin.dataset_id, error=error.detail)
                    raise

    def _chunks(self, plan: Plan, turner: Turner) -> AsyncGenerator[bytes, None]:
        stream = ExportStream(plan, self._files, turner)
        return stream.lines() if plan.layout.format == "manifest" else stream.zip()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
