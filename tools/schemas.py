"""`make schemas`: writes what is generated: documents, golden lines, `deploy/nats.conf`, the read model's version.

Fails if an event changed without a new schema version. Golden lines never change: they show that old logs still read.
"""

import json
import re
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from contracts.aggregates import REGISTRY
from contracts.asyncapi import asyncapi
from contracts.commands.base import result_type_of
from loratory.deploy import nats_conf
from tests import api_docs
from tests.catalog.view_digest import digest_of_tables_and_rows
from tests.contracts.samples import sample_of
from tools.event_schema import events_schema, undeclared_changes

DOCS = Path(__file__).parent.parent / "docs"
EVENTS = DOCS / "events.schema.json"
BUS = DOCS / "asyncapi.json"
NATS_CONF = DOCS.parent / "deploy/nats.conf"
VIEW_VERSION = DOCS.parent / "catalog/views/version.py"
GOLDEN = DOCS.parent / "tests/golden"


def format_document(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def add_golden_lines() -> None:
    """Appends to tests/golden a line with all fields for each type that has none."""
    for kind in REGISTRY.kinds:
        _append_missing(kind.name, kind.event_types)
    _append_missing("result", dict.fromkeys(map(result_type_of, REGISTRY.by_command)))


def _append_missing(name: str, types: Iterable[type[msgspec.Struct]]) -> None:
    file = GOLDEN / f"{name}.jsonl"
    written = file.read_text(encoding="utf-8") if file.exists() else ""
    present = {json.loads(line)["type"] for line in written.splitlines()}
    added = [msgspec.json.encode(sample_of(one)).decode() for one in types if one.__struct_config__.tag not in present]
    if added:
        file.write_text(written + "".join(f"{line}\n" for line in added), encoding="utf-8")


def write_view_version() -> None:
    written = VIEW_VERSION.read_text(encoding="utf-8")
    now = f"VERSION = 0x{digest_of_tables_and_rows():08X}"
    VIEW_VERSION.write_text(re.sub(r"^VERSION = .*$", now, written, flags=re.MULTILINE), encoding="utf-8")


def main() -> int:
    now = events_schema()
    if errors := undeclared_changes(json.loads(EVENTS.read_text(encoding="utf-8")), now) if EVENTS.exists() else []:
        sys.stderr.write("\n".join([*errors, "events are the disk format; see contracts/evolution.py\n"]))
        return 1
    EVENTS.write_text(format_document(now), encoding="utf-8")
    BUS.write_text(format_document(asyncapi(version("loratory"))), encoding="utf-8")
    NATS_CONF.write_text(nats_conf(), encoding="utf-8")
    api_docs.FILE.write_text(api_docs.render(api_docs.openapi_paths()), encoding="utf-8")
    add_golden_lines()
    write_view_version()
    return 0


if __name__ == "__main__":
    sys.exit(main())
