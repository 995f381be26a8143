"""What reading the texts of images another way would do."""

from itertools import islice

from catalog import index_memory, text_readings
from catalog.lookup import require_dataset
from catalog.query_handlers.context import QueryContext
from contracts.queries.datasets import PreviewTexts, TextsPreview

MAX_NEW_TAGS = 100


async def preview_texts(context: QueryContext, query: PreviewTexts) -> TextsPreview:
    """NotFound: there is no such data set. Rejected: images that it does not have."""
    dataset = await context.read(query, lambda connection: require_dataset(connection, query.dataset))
    memory = await index_memory.for_selection(context, dataset.id, query.selection)
    found = await text_readings.decide(context.store, context.keys, dataset.id, query, memory)
    return TextsPreview(
        dataset_id=found.dataset.id,
        dataset=found.dataset.name,
        counts=found.decision.counts,
        new_tags=tuple(islice(found.decision.new_tags, MAX_NEW_TAGS)),
        next=found.next,
    )
