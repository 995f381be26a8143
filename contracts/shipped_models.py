"""The models that come with Loratory: folders of data in the package `demo_world`, none of whose code is imported."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

PACKAGE = "demo_world"
BUILT_IN_TAGGER, BUILT_IN_TAGGER_DESCRIPTION = "demo", "knows only drawn creatures of the demo world"
TEST_MODELS = frozenset({"tiny-random"})
"""Shipped so that a test can use the installed package; not offered to users."""


def shipped_models(kind: Literal["bases", "taggers"]) -> dict[str, Path]:
    """Name → folder of each shipped model of this kind; empty if the installation lacks the package or its data."""
    spec = find_spec(PACKAGE)
    roots = [Path(root) / kind for root in (spec.submodule_search_locations or ())] if spec else []
    folders = [folder for root in roots if root.is_dir() for folder in sorted(root.iterdir()) if folder.is_dir()]
    return {folder.name: folder for folder in folders}
