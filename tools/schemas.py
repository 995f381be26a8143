"""`make schemas`: writes the generated documents to docs/. Fails if an event changed without a new schema version."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from contracts.asyncapi import asyncapi
from contracts.schemas import events_schema, undeclared_changes

DOCS = Path(__file__).parent.parent / "docs"
EVENTS = DOCS / "events.schema.json"
BUS = DOCS / "asyncapi.json"


def format_document(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    now = events_schema()
    if errors := undeclared_changes(json.loads(EVENTS.read_text(encoding="utf-8")), now) if EVENTS.exists() else []:
        sys.stderr.write("\n".join([*errors, "events are the disk format; see contracts/events/evolution.py\n"]))
        return 1
    EVENTS.write_text(format_document(now), encoding="utf-8")
    BUS.write_text(format_document(asyncapi(version("loratory"))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
