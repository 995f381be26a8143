"""Queries about presets."""

from datetime import datetime

from contracts.queries.base import Limit, Page, Query, View
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


class ListPresets(Query[Page[PresetView]], frozen=True):
    cursor: str | None = None
    limit: Limit = 100


class GetPreset(Query[PresetView], frozen=True):
    name: str
