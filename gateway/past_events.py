"""Events of the log as the catalog returns them, with the images they are about."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec

from contracts.commits import Aggregate, decode_event
from contracts.frames import IMAGE_EVENTS, EventImages
from contracts.queries.base import Page
from contracts.queries.log import EventView, ListEvents
from gateway.clients import CatalogClient
from gateway.cursor import LogPosition, Received
from gateway.live.encoding import EncodedEvent, encode_event, positions_after
from gateway.live.image_ids import ImageIds

IMAGE_EVENT_TYPES = frozenset(str(event.__struct_config__.tag) for event in IMAGE_EVENTS)


@dataclass(frozen=True, slots=True)
class PastEvent:
    """`position` is the one after the event."""

    view: EventView
    position: LogPosition
    images: EventImages | None

    @property
    def aggregate(self) -> Aggregate:
        return self.view.aggregate_kind, self.view.aggregate_id

    def encode(self, received: Received, log_id: str) -> EncodedEvent:
        """The event as the live feed sends it. `received`: what its receiver has then."""
        event = decode_event(bytes(self.view.data), self.view.schema)
        return encode_event(
            event, self.view, position=self.position, received=received, images=self.images, log_id=log_id
        )


@dataclass(frozen=True)
class PastEvents:
    catalog: CatalogClient
    images: ImageIds

    async def page(self, query: ListEvents) -> Page[PastEvent]:
        page = await self.catalog.query(query)
        views = page.items
        about_images = [index for index, view in enumerate(views) if view.type in IMAGE_EVENT_TYPES]
        events = [
            (views[index].aggregate_id, decode_event(bytes(views[index].data), views[index].schema))
            for index in about_images
        ]
        found = await self.images.images_of(events, applied=views[-1].sequence) if events else []
        images = dict(zip(about_images, found, strict=True))
        positions = positions_after(views)
        items = tuple(PastEvent(view, positions[index], images.get(index)) for index, view in enumerate(views))
        return Page(items=items, total=page.total, next=page.next)

    async def pages(self, query: ListEvents) -> AsyncIterator[tuple[PastEvent, ...]]:
        """All pages of matching events (whole commits; a page may be empty), up to the current end of the log."""
        while True:
            page = await self.page(query)
            yield page.items
            if page.next is None:
                return
            query = msgspec.structs.replace(query, after=int(page.next))
