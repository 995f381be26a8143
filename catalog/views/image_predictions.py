"""Reads the predictions of images, current ones and those of the past; `predictions` writes them."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import groupby, repeat
from operator import itemgetter
from typing import Any

import msgspec
from pyroaring import BitMap

from catalog.database import MAX_SEQUENCE, Connection
from catalog.domain.effective_tags import Predicted
from catalog.domain.rules import Rules
from catalog.rows import fetch_value, json_array
from catalog.views import pairs, tag_names, undos
from catalog.views.batch import Pairs
from contracts.tags import Acceptance, Fixed

SELECTED = "WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?))"
CURRENT = f"SELECT ordinal, packed FROM prediction {SELECTED} AND current = 1"  # noqa: S608 - constants
CURRENT_BY_AGE = f"""
SELECT ordinal, packed FROM prediction {SELECTED} AND current = 1 ORDER BY ordinal, run_sequence DESC
"""  # noqa: S608 - constants
OF_IMAGES = f"""
SELECT ordinal, run_id, model, run_sequence, sequence, packed FROM prediction
{SELECTED} AND sequence <= ? AND unreadable IS NULL ORDER BY ordinal, run_sequence DESC
"""  # noqa: S608 - constants
CURRENT_OF_IMAGES = f"""
SELECT ordinal, run_id, sequence, packed FROM prediction {SELECTED} AND current = 1 ORDER BY ordinal, run_sequence DESC
"""  # noqa: S608 - constants
# In one row: for each row that SQLite returns, a thread gives up the interpreter and waits for it again.
ORDINALS_OF_RUN = "SELECT json_group_array(ordinal) FROM prediction WHERE dataset_id = ? AND run_id = ?"
PREDICTED_ORDINALS = "SELECT DISTINCT ordinal FROM prediction WHERE dataset_id = ? AND model = ? ORDER BY ordinal"

_ordinals = msgspec.json.Decoder(list[int]).decode


def images_of_run(connection: Connection, dataset_id: str, run: str) -> BitMap:
    """The images that a tagging run has processed."""
    return BitMap(_ordinals(fetch_value(connection, ORDINALS_OF_RUN, (dataset_id, run))))


def rules_by_id(connection: Connection, acceptance: Acceptance) -> Rules:
    """The rules of a data set by the ids of tags."""
    named = (*acceptance.deny, *(acceptance.threshold.tags if isinstance(acceptance.threshold, Fixed) else ()))
    return pairs.rules_by_id(acceptance, tag_names.ids_of(connection, named) if named else {})


def passing_now(connection: Connection, dataset_id: str, ordinals: BitMap, rules: Rules) -> Pairs:
    rows = connection.execute(CURRENT, (dataset_id, json_array(ordinals))).fetchall()
    return pairs.passing(rows, rules)


def passing_tags(connection: Connection, dataset_id: str, ordinals: BitMap, rules: Rules) -> set[int]:
    """The tags that predictions give these images now, whatever was decided."""
    return {tag for tag, _ in pairs.by_tag(passing_now(connection, dataset_id, ordinals, rules))}


def load_current(
    connection: Connection, dataset_id: str, ordinals: Iterable[int], until: int = MAX_SEQUENCE
) -> dict[int, list[list[Predicted]]]:
    """The current predictions as of a sequence, by ordinal, newest run first."""
    if until == MAX_SEQUENCE:
        rows = connection.execute(CURRENT_OF_IMAGES, (dataset_id, json_array(ordinals))).fetchall()
    else:
        rows = [row for some in _rows_at(connection, dataset_id, ordinals, until).values() for row in some]
    found: defaultdict[int, list[list[Predicted]]] = defaultdict(list)
    for row, (tags, categories, probabilities) in zip(rows, pairs.unpack([row["packed"] for row in rows]), strict=True):
        of_run = zip(tags, categories, probabilities, repeat(row["run_id"]), repeat(row["sequence"]))
        found[row["ordinal"]].append(list(of_run))
    return found


def _rows_at(connection: Connection, dataset_id: str, ordinals: Iterable[int], until: int) -> dict[int, list[Any]]:
    rows = connection.execute(OF_IMAGES, (dataset_id, json_array(ordinals), until)).fetchall()
    undone = undos.undone_runs(connection, dataset_id, until)
    found: dict[int, list[Any]] = {}
    for ordinal, of_image in groupby((row for row in rows if row["run_id"] not in undone), key=itemgetter(0)):
        newest: dict[str, Any] = {}
        for row in of_image:
            newest.setdefault(row["model"], row)
        found[ordinal] = list(newest.values())
    return found


def passing_at(connection: Connection, dataset_id: str, ordinals: Iterable[int], until: int, rules: Rules) -> Pairs:
    """The tags that predictions gave these images as of a sequence, whatever was decided."""
    found = _rows_at(connection, dataset_id, ordinals, until)
    return pairs.passing([(ordinal, row["packed"]) for ordinal, rows in found.items() for row in rows], rules)


def current_rows(connection: Connection, dataset_id: str, ordinals: Iterable[int]) -> list[tuple[int, bytes]]:
    """Ordinal and packed predictions of these images now, by ordinal, newest run first."""
    return connection.execute(CURRENT_BY_AGE, (dataset_id, json_array(ordinals))).fetchall()


def predicted_ordinals(connection: Connection, dataset_id: str, model: str) -> list[int]:
    """The images that some run of this model has processed, ascending: those that `only_new` excludes."""
    return [row["ordinal"] for row in connection.execute(PREDICTED_ORDINALS, (dataset_id, model))]
