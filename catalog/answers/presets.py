"""Answers about presets: those that come with Loratory first, then people's own, each by name."""

from catalog.answers.paging import key_of, paged
from catalog.answers.shelf import Shelf
from catalog.database import Connection
from catalog.domain.builtin_presets import BY_NAME, OWN, BuiltinPreset
from catalog.views import presets
from catalog.views.presets import PresetRow
from contracts.errors import Gone, NotFound
from contracts.queries import GetPreset, ListPresets, Page, PresetView


async def list_presets(shelf: Shelf, query: ListPresets) -> Page[PresetView]:
    rank, name = key_of(query.cursor, (0, ""))

    def look(connection: Connection) -> Page[PresetView]:
        first = [_builtin(BY_NAME[known]) for known in sorted(BY_NAME) if (rank, name) < (0, known)]
        rows = presets.page(connection, name if rank else "", query.limit + 1)
        views = [*first, *map(_own, rows)][: query.limit + 1]
        total = len(BY_NAME) + presets.count(connection)
        return paged(
            views, lambda view: view, lambda view: (int(not view.builtin), view.name), total=total, limit=query.limit
        )

    return await shelf.look(query, look)


async def get_preset(shelf: Shelf, query: GetPreset) -> PresetView:
    if query.name in BY_NAME:
        return _builtin(BY_NAME[query.name])
    row = await shelf.look(query, lambda connection: presets.find(connection, query.name))
    if row is None:
        raise NotFound(f"there is no preset {query.name!r}")
    if row.retired:
        raise Gone(f"the preset {query.name!r} has been retired")
    return _own(row)


def _builtin(preset: BuiltinPreset) -> PresetView:
    return PresetView(
        name=preset.name,
        description=preset.description,
        parent=None,
        category=preset.category,
        recipe=preset.recipe,
        builtin=True,
        created_at=None,
        etag=0,
    )


def _own(row: PresetRow) -> PresetView:
    return PresetView(
        name=row.name,
        description=row.description,
        parent=row.parent,
        category=OWN,
        recipe=row.recipe,
        builtin=False,
        created_at=row.created_at,
        etag=row.touched,
    )
