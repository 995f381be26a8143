"""README names every setting; that it names every route is asked in `tests/gateway/test_described.py`."""

from pathlib import Path

import msgspec
import pytest

import catalog.settings
import gateway.settings
import tagger.settings
import trainer.settings
from contracts.wire.migration import MigrateSettings

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SETTINGS: list[type[msgspec.Struct]] = [
    catalog.settings.Settings,
    gateway.settings.Settings,
    tagger.settings.Settings,
    trainer.settings.Settings,
    MigrateSettings,
]


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__module__)
def test_readme_names_every_setting(kind: type[msgspec.Struct]) -> None:
    missing = [
        variable
        for field in msgspec.structs.fields(kind)
        if (variable := f"LORATORY_{field.name.upper()}") and f"`{variable}`" not in README
    ]
    assert not missing
