"""What reading the texts of images another way would do."""

from itertools import islice

from catalog import text_readings
from catalog.query_handlers.context import QueryContext
from contracts.queries.datasets import PreviewTexts, TextsPreview

MAX_NEW_TAGS = 100


async def preview_texts(context: QueryContext, query: PreviewTexts) -> TextsPreview:
    """NotFound: there is no such data set. Rejected: images that it does not have."""
    await context.wait_for(query)
    found = await text_readings.decide(context, context.store, query)
    return TextsPreview(
        dataset_id=found.dataset.id,
        dataset=found.dataset.name,
        counts=found.decision.counts,
        new_tags=tuple(islice(found.decision.new_tags, MAX_NEW_TAGS)),
        next=found.next,
    )
