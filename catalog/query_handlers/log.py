"""Queries about the log, answered from the archive."""

from catalog import entries
from catalog.query_handlers.context import QueryContext
from contracts.queries import EventView, GetLog, ListEvents, LogView, Page


async def list_events(context: QueryContext, query: ListEvents) -> Page[EventView]:
    await context.store.wait_for(query.min_seq)
    return await context.archive.read(lambda connection: entries.list_events(connection, query))


async def get_log(context: QueryContext, query: GetLog) -> LogView:
    await context.store.wait_for(query.min_seq)
    tail = context.archive.tail
    return LogView(
        log_id=context.archive.log_id,
        applied=context.store.applied,
        archived=tail.sequence,
        head=tail.digest,
        verified=context.archive.verified,
    )
