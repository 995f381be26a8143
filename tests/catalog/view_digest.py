"""The version of the read model: a digest of its tables and of the rows of a fixed history."""

import hashlib
import random
import sqlite3
from contextlib import closing

from catalog import views
from contracts.events.datasets import CaptionSet, ImagesRemoved, ImagesReviewed, ThresholdsSet
from contracts.sealed import CAPTION, seal
from tests.catalog.log_builder import LogBuilder, bitmap, full_history, image_id, key_for
from tests.catalog.test_store import dump

SCHEMA = "SELECT sql FROM sqlite_master ORDER BY type, name"
TAGS = ("cat", "dog", "sky", "mia", "tree")


def long_history() -> LogBuilder:
    """Every type of event, then many edits, predictions, thresholds and removals in a fixed random order."""
    builder, rng = full_history(), random.Random(7)
    builder.create_dataset("ds_long", "long")
    for ordinal in range(12):
        builder.add_image(ordinal, "ds_long", rng.sample(TAGS, 2))
    for number in range(150):
        ordinals, tags = rng.sample(range(12), 3), rng.sample(TAGS, 3)
        match rng.choice(("edit", "edit", "predict", "predict", "caption", "thresholds", "review", "remove")):
            case "edit":
                builder.edit_tags(*ordinals, add=tags[:1], remove=tags[1:], dataset="ds_long")
            case "predict":
                run, model = f"run_long_{number}", rng.choice(("wd", "other"))
                attempt = builder.start_run(run, *ordinals, model=model, dataset="ds_long")
                builder.predict(run, attempt, ordinals[0], *((tag, rng.randrange(1, 100) / 100) for tag in tags))
            case "caption":
                caption = seal(key_for(image_id("ds_long", ordinals[0])), " ".join(tags), CAPTION)
                builder.append("dataset", "ds_long", CaptionSet(ordinal=ordinals[0], caption=caption))
            case "thresholds":
                general, character = rng.randrange(1, 100) / 100, rng.randrange(1, 100) / 100
                thresholds = ThresholdsSet(categories={"general": general, "character": character})
                builder.append("dataset", "ds_long", thresholds)
            case "review":
                reviewed = ImagesReviewed(images=bitmap(*ordinals), reviewed=rng.choice((True, False)))
                builder.append("dataset", "ds_long", reviewed)
            case _ if number % 5 == 0:
                builder.append("dataset", "ds_long", ImagesRemoved(images=bitmap(ordinals[0])))
    return builder


def digest_of_tables_and_rows() -> int:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.executescript(views.TABLES)
        views.apply(connection, long_history().commits)
        tables = [" ".join(str(sql).split()) for (sql,) in connection.execute(SCHEMA)]
        content = repr((tables, dump(connection)))
    return int(hashlib.sha256(content.encode()).hexdigest()[:8], 16)
