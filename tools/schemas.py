"""`make schemas`: write what the types say into docs/. Refused where a fact has changed without a new version."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from contracts.asyncapi import asyncapi
from contracts.schemas import facts_schema, undeclared

DOCS = Path(__file__).parent.parent / "docs"
FACTS = DOCS / "facts.schema.json"
BUS = DOCS / "asyncapi.json"


def text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    now = facts_schema()
    if faults := undeclared(json.loads(FACTS.read_text(encoding="utf-8")), now) if FACTS.exists() else []:
        sys.stderr.write("\n".join([*faults, "facts are the disk format; see contracts/events/evolution.py\n"]))
        return 1
    FACTS.write_text(text(now), encoding="utf-8")
    BUS.write_text(text(asyncapi(version("loratory"))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
