"""What an edit of many images would change."""

from itertools import islice

from pyroaring import BitMap

from catalog import index_memory
from catalog.database import Connection
from catalog.domain.bulk_edits import images_of
from catalog.domain.edits import Choice, requested_choices
from catalog.lookup import require_dataset
from catalog.query_handlers.context import QueryContext
from catalog.store import checkpoint
from catalog.views import images
from catalog.views.bulk_edits import BulkEdit, bulk_edit
from contracts.queries.datasets import EditExample, EditPreview, PreviewEdit, TagEffect

MAX_EXAMPLES = 20


async def preview_edit(context: QueryContext, query: PreviewEdit) -> EditPreview:
    """Rejected: no tag is named, one twice, or images that the data set does not have."""
    requested = requested_choices(add=query.add, remove=query.remove, withdraw=query.withdraw)
    dataset = await context.read(query, lambda connection: require_dataset(connection, query.dataset))
    memory = await index_memory.for_selection(context, dataset.id, query.selection)

    def read(connection: Connection) -> EditPreview:
        edit = bulk_edit(connection, dataset.id, query.selection, requested, memory)
        changed = images_of(edit.changes)
        unchanged = edit.selected - changed
        return EditPreview(
            dataset_id=dataset.id,
            dataset=dataset.name,
            as_of=checkpoint(connection).sequence,
            selected=len(edit.selected),
            changed=len(changed),
            unchanged=len(unchanged),
            tags=tuple(TagEffect(tag=one.tag, decision=one.choice, images=len(one.images)) for one in edit.changes),
            examples=_examples(connection, dataset.id, edit, changed),
            unchanged_examples=tuple(images.ids_by_ordinal(connection, dataset.id, _first(unchanged)).values()),
        )

    return await context.store.read(read)


def _examples(connection: Connection, dataset_id: str, edit: BulkEdit, changed: BitMap) -> tuple[EditExample, ...]:
    ids = images.ids_by_ordinal(connection, dataset_id, _first(changed))

    def tags(ordinal: int, choice: Choice) -> tuple[str, ...]:
        return tuple(one.tag for one in edit.changes if one.choice == choice and ordinal in one.images)

    return tuple(
        EditExample(
            image=ids[ordinal],
            asserted=tags(ordinal, "asserted"),
            rejected=tags(ordinal, "rejected"),
            withdrawn=tags(ordinal, "withdrawn"),
        )
        for ordinal in sorted(ids)
    )


def _first(ordinals: BitMap) -> list[int]:
    return list(islice(ordinals, MAX_EXAMPLES))
