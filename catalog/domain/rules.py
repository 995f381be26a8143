"""The rules by which predictions become tags, by the ids of tags. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.events.base import Category


@dataclass(frozen=True)
class Rules:
    """The rules of a data set by the ids of tags; `of_tags` and `deny` lack tags that the log has never named."""

    categories: Mapping[Category, float]
    of_tags: Mapping[int, float]
    deny: frozenset[int]
