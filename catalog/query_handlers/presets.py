"""Queries about presets: the built-in ones first, then users' own, each by name."""

from catalog.database import Connection
from catalog.domain.builtin_presets import BY_NAME, OWN, BuiltinPreset
from catalog.query_handlers.context import QueryContext
from catalog.query_handlers.paging import build_page, decode_cursor
from catalog.views import presets
from catalog.views.presets import PresetRow
from contracts.errors import Gone, NotFound
from contracts.queries import GetPreset, ListPresets, Page, PresetView


async def list_presets(context: QueryContext, query: ListPresets) -> Page[PresetView]:
    rank, name = decode_cursor(query.cursor, (0, ""))

    def read(connection: Connection) -> Page[PresetView]:
        builtin = [_builtin_view(BY_NAME[known]) for known in sorted(BY_NAME) if (rank, name) < (0, known)]
        rows = presets.page(connection, name if rank else "", query.limit + 1)
        views = [*builtin, *map(_own_view, rows)][: query.limit + 1]
        total = len(BY_NAME) + presets.count(connection)
        return build_page(
            views, lambda view: view, lambda view: (int(not view.builtin), view.name), total=total, limit=query.limit
        )

    return await context.read(query, read)


async def get_preset(context: QueryContext, query: GetPreset) -> PresetView:
    if query.name in BY_NAME:
        return _builtin_view(BY_NAME[query.name])
    row = await context.read(query, lambda connection: presets.find(connection, query.name))
    if row is None:
        raise NotFound(f"there is no preset {query.name!r}")
    if row.retired:
        raise Gone(f"the preset {query.name!r} has been retired")
    return _own_view(row)


def _builtin_view(preset: BuiltinPreset) -> PresetView:
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


def _own_view(row: PresetRow) -> PresetView:
    return PresetView(
        name=row.name,
        description=row.description,
        parent=row.parent,
        category=OWN,
        recipe=row.recipe,
        builtin=False,
        created_at=row.created_at,
        etag=row.etag,
    )
