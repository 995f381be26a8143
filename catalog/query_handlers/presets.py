"""Queries about presets: the built-in ones first, then users' own, each by name."""

from catalog.database import Connection
from catalog.domain.builtin_presets import BY_NAME, OWN, BuiltinPreset
from catalog.domain.compose import compose
from catalog.lookup import require_preset
from catalog.query_handlers.context import QueryContext, on_snapshot
from catalog.query_handlers.paging import build_page, decode_cursor
from catalog.views import presets
from contracts.queries.base import Page
from contracts.queries.presets import GetPreset, ListPresets, PresetView


@on_snapshot
def list_presets(connection: Connection, query: ListPresets) -> Page[PresetView]:
    rank, name = decode_cursor(query.cursor, (0, ""))
    builtin = [_builtin_view(BY_NAME[known]) for known in sorted(BY_NAME) if (rank, name) < (0, known)]
    rows = presets.page(connection, name if rank else "", query.limit + 1)
    views = [*builtin, *map(_own_view, rows)][: query.limit + 1]
    total = len(BY_NAME) + presets.count(connection)
    return build_page(query, views, lambda view: view, lambda view: (int(not view.builtin), view.name), total)


async def get_preset(context: QueryContext, query: GetPreset) -> PresetView:
    if query.name in BY_NAME:
        return _builtin_view(BY_NAME[query.name])
    return _own_view(await context.read(query, lambda connection: require_preset(connection, query.name)))


def _builtin_view(preset: BuiltinPreset) -> PresetView:
    return compose(PresetView, preset, parent=None, builtin=True, created_at=None, etag=0)


def _own_view(row: presets.PresetRow) -> PresetView:
    return compose(PresetView, row, category=OWN, builtin=False)
