"""The async Python client: the public API, typed. `loratory.Client` is its synchronous counterpart.

Every method may raise a LoratoryError of `contracts.errors`: the one named by the problem document's `code`, or
Unavailable if no server responded for `retry_timeout` seconds.
"""

from typing import Any, Self, Unpack

import msgspec

from contracts.losses import LossReport
from loratory.api.base import path
from loratory.api.datasets import DatasetApi
from loratory.api.event_log import EventLogApi
from loratory.api.work import WorkApi
from loratory.http import Http, HttpOptions

DEFAULT_URL = "http://127.0.0.1:8000"


class _Readiness(msgspec.Struct):
    losses: LossReport


class AsyncClient(DatasetApi, WorkApi, EventLogApi):
    """`async with AsyncClient() as client:` … `url` of the gateway; `key`: API key, if it needs one."""

    def __init__(self, url: str = DEFAULT_URL, key: str | None = None, **options: Unpack[HttpOptions]) -> None:
        super().__init__(Http(url, key, **options))

    @property
    def url(self) -> str:
        return self._http.url

    async def close(self) -> None:
        await self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def losses_found(self) -> LossReport:
        """What is missing of the stored bytes and keys, as the server noticed last."""
        return (await self._http.get("/health/ready", _Readiness)).losses

    async def version(self) -> dict[str, Any]:
        return await self._http.get(path("version"), dict[str, Any])

    async def status(self) -> dict[str, Any]:
        """Workers, log position and counts."""
        return await self._http.get(path("status"), dict[str, Any])
