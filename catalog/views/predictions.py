"""What models saw: one row for each run and image. What counts is the newest run of each model that read the image."""

import msgspec

from catalog.database import Connection
from catalog.domain.standing import Seen
from catalog.views import tagging
from contracts.events import DatasetErased, ImageErased, Prediction, Stored, TaggingPredicted

TABLES = """
CREATE TABLE IF NOT EXISTS prediction (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    model TEXT NOT NULL,
    requested INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    predictions BLOB NOT NULL,
    unreadable TEXT,
    PRIMARY KEY (dataset_id, ordinal, run_id)
);
"""

KEEP = "INSERT OR REPLACE INTO prediction VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
CURRENT = """
SELECT ordinal, run_id, model, sequence, predictions FROM prediction
WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?)) AND sequence <= ? AND unreadable IS NULL
ORDER BY ordinal, requested DESC
"""
ERASE_ONE = "DELETE FROM prediction WHERE dataset_id = ? AND ordinal = ?"
ERASE_ALL = "DELETE FROM prediction WHERE dataset_id = ?"
COVERED = "SELECT DISTINCT ordinal FROM prediction WHERE dataset_id = ? AND model = ? ORDER BY ordinal"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[Prediction, ...]).decode


def apply(connection: Connection, stored: Stored) -> None:
    thing = stored.commit.thing
    for fact in stored.commit.facts:
        match fact:
            case TaggingPredicted(images=images):
                run = tagging.run_of(connection, thing)
                origin = (run.id, run.asked.model, run.created, stored.sequence)
                connection.executemany(
                    KEEP,
                    (
                        (run.asked.dataset_id, image.ordinal, *origin, _encode(image.predictions), image.unreadable)
                        for image in images
                    ),
                )
            case ImageErased(ordinal=ordinal):
                connection.execute(ERASE_ONE, (thing, ordinal))
            case DatasetErased():
                connection.execute(ERASE_ALL, (thing,))
            case _:
                pass


def current(connection: Connection, dataset_id: str, ordinals: str, until: int) -> dict[int, list[Seen]]:
    """What the newest run of each model, as of a sequence, saw in these images (a JSON list); the newest run first."""
    found: dict[int, dict[str, Seen]] = {}
    for row in connection.execute(CURRENT, (dataset_id, ordinals, until)):
        models = found.setdefault(row["ordinal"], {})
        if row["model"] not in models:
            seen = Seen(run=row["run_id"], sequence=row["sequence"], predictions=_decode(row["predictions"]))
            models[row["model"]] = seen
    return {ordinal: list(models.values()) for ordinal, models in found.items()}


def covered(connection: Connection, dataset_id: str, model: str) -> list[int]:
    """The images some run of this model has looked at, rising: what `only_new` leaves out."""
    return [row["ordinal"] for row in connection.execute(COVERED, (dataset_id, model))]
