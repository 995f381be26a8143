"""Queries about presets."""

from datetime import datetime

from contracts.queries.base import Page, Query, QueryPage, View
from contracts.recipe import Recipe


class PresetView(View, frozen=True):
    name: str
    description: str
    parent: str | None
    category: str
    recipe: Recipe
    builtin: bool
    created_at: datetime | None
    etag: int


class ListPresets(QueryPage[Page[PresetView]], frozen=True):
    pass


class GetPreset(Query[PresetView], frozen=True):
    name: str
