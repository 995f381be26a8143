"""The documents match the code: settings, routes, words, links and file names. Commands: `test_docs_commands.py`."""

import re
import typing
from pathlib import Path

import msgspec
import pytest

import catalog.settings
import gateway.settings
import tagger.settings
import trainer.settings
from contracts import cures
from contracts.aggregates import REGISTRY, AnyEvent
from contracts.queries.owners import QUERIES
from contracts.recipe import Recipe
from contracts.wire.log.migration import MigrateSettings
from tests import api_docs, readme_presets

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DOCUMENTS = sorted([ROOT / "README.md", *DOCS.glob("*.md"), *DOCS.glob("how-to/*.md")])
SETTINGS: list[type[msgspec.Struct]] = [
    catalog.settings.Settings,
    gateway.settings.Settings,
    tagger.settings.Settings,
    trainer.settings.Settings,
    MigrateSettings,
]
CLIENT_SETTINGS = ("LORATORY_URL", "LORATORY_KEY", "LORATORY_CA")
"""Read by the command line."""
ORDINARY_WORDS = frozenset(
    [
        "api",
        "file",
        "files",
        "generate",
        "get",
        "id",
        "ids",
        "index",
        "list",
        "many",
        "name",
        "read",
        "single",
        "v1",
        "ws",
    ]
)
"""Words in names that mean what they mean in English, or in every API."""

NEW_FILES = frozenset(("gateway/web/presets.js", "trainer/families/sdxl.py"))
"""Files that a reader of a how-to creates."""


def names_in_operations() -> set[str]:
    return set(re.findall(r"`(LORATORY_\w+)`", (DOCS / "operations.md").read_text(encoding="utf-8")))


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.__module__)
def test_operations_names_every_setting(settings: type[msgspec.Struct]) -> None:
    variables = {f"LORATORY_{field.name.upper()}" for field in msgspec.structs.fields(settings)}
    assert variables - names_in_operations() == set()


def test_operations_names_no_setting_that_does_not_exist() -> None:
    known = {f"LORATORY_{field.name.upper()}" for kind in SETTINGS for field in msgspec.structs.fields(kind)}
    assert set(CLIENT_SETTINGS) <= names_in_operations() <= known | set(CLIENT_SETTINGS)


def test_api_md_is_generated_from_the_routes() -> None:
    expected = api_docs.render(api_docs.openapi_paths())
    assert api_docs.FILE.read_text(encoding="utf-8") == expected, "run `python -m tests.api_docs`"


def split_name(name: str) -> set[str]:
    """`CreateDataset` → create, dataset; `/api/v1/jobs/{job}` → api, v1, jobs, job."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+", name)}


def words_in_names() -> set[str]:
    """All words in the names of events, commands and queries, and in the paths of routes."""
    events = [str(event.__struct_config__.tag) for event in typing.get_args(AnyEvent)]
    kinds = [command.__name__ for command in REGISTRY.by_command]
    queries = [query.__name__ for queries in QUERIES.values() for query in queries]
    paths = [*api_docs.openapi_paths(), *api_docs.WEBSOCKETS]
    return {word for name in (*events, *kinds, *queries, *paths) for word in split_name(name)}


def glossary_rows() -> list[list[str]]:
    """(words, means, not) of each row."""
    lines = (DOCS / "glossary.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in rows if row[0] != "Word"]


def glossary_entries() -> list[str]:
    """The words, with the place in parentheses that tells two meanings apart."""
    return [word.strip().lower() for row in glossary_rows() for word in row[0].split(",")]


def glossary_words() -> list[str]:
    return [re.sub(r"\(.*?\)", "", entry).strip() for entry in glossary_entries()]


def test_every_word_in_a_name_is_in_the_glossary_or_is_ordinary() -> None:
    known = {*glossary_words(), *(f"{word}s" for word in glossary_words())} | ORDINARY_WORDS
    known |= {word.removesuffix("y") + "ies" for word in glossary_words() if word.endswith("y")}
    assert sorted(words_in_names() - known) == []


@pytest.mark.slow
def test_the_list_of_ordinary_words_has_none_too_many() -> None:
    assert sorted(ORDINARY_WORDS - words_in_names()) == []


def test_each_word_has_one_meaning_or_says_where_it_has_which() -> None:
    entries, words = glossary_entries(), glossary_words()
    repeated = [entry for entry, word in zip(entries, words, strict=True) if words.count(word) > 1]
    assert [entry for entry in repeated if "(" not in entry or repeated.count(entry) > 1] == []
    assert all(len(row) == 3 and all(row) for row in glossary_rows())


def test_the_table_of_presets_is_generated_from_the_presets() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme_presets.render() in readme, "paste what `python -m tests.readme_presets` prints"


def test_every_recipe_field_in_the_readme_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| kohya | Field here |\n")[2].partition("\n\n")[0]
    named = [name for row in table.splitlines()[1:] for name in re.findall(r"`([a-z_.]+)`", row.split("|")[2])]
    fields = [name for name in named if name not in {"constant", "linear", "cosine"}]
    assert len(fields) > 20
    recipe = msgspec.to_builtins(Recipe())
    for field in fields:
        branch = recipe
        for part in field.split("."):
            assert part in branch, field
            branch = branch[part]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_named_in_text_exist(document: Path) -> None:
    """Paths in backticks that begin with one of our packages; `docs/shows.md` is about the past."""
    if document.name == "shows.md":
        return
    packages = "contracts|catalog|gateway|tagger|trainer|loratory|tests|tools|docs|deploy"
    named = set(
        re.findall(rf"`((?:{packages})/[\w./-]*(?:\.(?:py|js|md|jsonl|sh|conf)|/))`", document.read_text("utf-8"))
    )
    assert sorted(path for path in named - NEW_FILES if not (ROOT / path).exists()) == []


def test_the_architecture_names_every_module_of_the_wire() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("| Folder | Modules |\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:3]] for row in table.splitlines()[1:]]
    named = [f"{folder.strip('`')}/{name}" for folder, cell in rows for name in re.findall(r"(?:^|· )`(\w+)`", cell)]
    files = [f"{file.parent.name}/{file.stem}" for file in (ROOT / "contracts" / "wire").glob("*/[!_]*.py")]
    assert len(files) > 20
    assert sorted(named) == sorted(files)


def test_operations_has_the_table_of_damages_and_cures() -> None:
    assert cures.markdown_table() in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
