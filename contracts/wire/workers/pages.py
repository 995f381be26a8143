"""What a worker reads of the catalog page by page in the middle of an attempt."""

from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec
from nats.aio.client import Client

from contracts.queries.base import Page, QueryPage
from contracts.wire.service.requests import ServiceClient

T = TypeVar("T")

RETRY_SECONDS = 120.0
"""How long a page is requested again while the catalog is unavailable."""


async def read_pages(bus: Client, query: QueryPage[Page[T]]) -> AsyncIterator[tuple[T, ...]]:
    """The items of each page of a list, from the query's cursor on. Unavailable: the catalog did not come back."""
    client = ServiceClient(bus)
    while True:
        page = await client.query(query, retry_timeout=RETRY_SECONDS)
        yield page.items
        if page.next is None:
            return
        query = msgspec.structs.replace(query, cursor=page.next)
