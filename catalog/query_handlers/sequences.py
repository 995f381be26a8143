"""Queries that ask for a sequence which the log does not have."""

from collections.abc import Awaitable, Callable

import msgspec

from contracts.errors import Behind, Invalid
from contracts.queries.base import Query
from contracts.wire.service.requests import QueryHandler, QueryHandlers

LogEnd = Callable[[], Awaitable[int]]
"""The last sequence of the log."""


def refusing_unknown_sequences(handlers: QueryHandlers, log_end: LogEnd) -> QueryHandlers:
    """The same handlers; a `min_seq` after the log's end is Invalid, as no write has returned it, not Behind.

    The log is asked only when the read model has not shown the sequence in time.
    """

    def refusing(handler: QueryHandler) -> QueryHandler:
        async def answer(query: Query[msgspec.Struct]) -> msgspec.Struct:
            try:
                return await handler(query)
            except Behind:
                if query.min_seq > (end := await log_end()):
                    raise Invalid(f"`min_seq` is {query.min_seq}, but the log ends at {end}") from None
                raise

        return answer

    return {query: refusing(handler) for query, handler in handlers.items()}
