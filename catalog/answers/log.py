"""Answers about the log, straight from the archive."""

from catalog import entries
from catalog.answers.shelf import Shelf
from contracts.queries import EventView, GetLog, ListEvents, LogView, Page


async def list_events(shelf: Shelf, query: ListEvents) -> Page[EventView]:
    await shelf.store.wait_for(query.min_seq)
    return await shelf.archive.read(lambda connection: entries.page(connection, query))


async def get_log(shelf: Shelf, query: GetLog) -> LogView:
    await shelf.store.wait_for(query.min_seq)
    tail = shelf.archive.tail
    return LogView(
        log_id=shelf.archive.log_id,
        applied=shelf.store.applied,
        archived=tail.sequence,
        head=tail.digest,
        verified=shelf.archive.verified,
    )
