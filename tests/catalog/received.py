"""Query handlers with results as clients receive them: encoded, and decoded to the types of the queries' results."""

from typing import Any

import msgspec

from contracts.queries.base import Query, result_type_of
from contracts.wire.service.requests import QueryHandler, QueryHandlers


def as_received(handlers: QueryHandlers) -> QueryHandlers:
    return {query: _as_received(query, handler) for query, handler in handlers.items()}


def _as_received(query: type[Query[Any]], handler: QueryHandler) -> QueryHandler:
    async def run(asked: Query[Any]) -> Any:
        body = msgspec.json.encode(await handler(asked))
        return msgspec.json.decode(body, type=result_type_of(query))

    return run
