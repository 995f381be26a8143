"""Data sets: names, revisions, and settings (name, thresholds, rules), current and past."""

import unicodedata
from collections import Counter
from collections.abc import Set as AbstractSet
from datetime import datetime

import msgspec

from catalog.database import MAX_SEQUENCE, Connection
from catalog.domain.datasets import DatasetState
from catalog.domain.effective_tags import DEFAULT_THRESHOLDS, rules_of
from catalog.rows import fetch, fetch_number, fetch_one, fetch_value
from catalog.views import undos
from catalog.views.batch import CommitBatch, Toggle
from contracts.commits import RecordedCommit, StreamRevision, revision_of
from contracts.events.base import Event
from contracts.events.datasets import (
    DatasetCreated,
    DatasetErased,
    DatasetRemoved,
    DatasetRenamed,
    ImageAdded,
    ImageRefused,
    RulesSet,
    TextSettingsSet,
    ThresholdsSet,
)
from contracts.events.tagging import TaggingPredicted
from contracts.ids import DatasetId
from contracts.tags import Acceptance

TABLES = """
CREATE TABLE IF NOT EXISTS dataset (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    description TEXT NOT NULL,
    removed INTEGER NOT NULL DEFAULT 0,
    erased INTEGER NOT NULL DEFAULT 0,
    next_ordinal INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    thresholds BLOB NOT NULL,
    rules BLOB NOT NULL,
    text_settings BLOB NOT NULL,
    latest_version INTEGER,
    created_sequence INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    changed_at TEXT NOT NULL,
    name_sequence INTEGER NOT NULL,
    text_sequence INTEGER NOT NULL,
    etag INTEGER NOT NULL,
    revision_sequence INTEGER NOT NULL DEFAULT 0,
    revision_version INTEGER NOT NULL DEFAULT 0,
    revision_digest TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS dataset_by_name ON dataset (name_key) WHERE removed = 0;
CREATE INDEX IF NOT EXISTS dataset_by_age ON dataset (created_sequence) WHERE removed = 0;
CREATE TABLE IF NOT EXISTS setting (
    dataset_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (dataset_id, kind, sequence)
) WITHOUT ROWID;
"""

CREATE = """
INSERT INTO dataset
    (id, name, name_key, description, thresholds, rules, text_settings, created_sequence, created_at, changed_at,
    name_sequence, text_sequence, etag)
VALUES (:id, :name, :name_key, :description, :thresholds, :rules, :text_settings, :sequence, :at, :at,
    :sequence, :sequence, :sequence)
ON CONFLICT DO NOTHING
"""
RENAME = "UPDATE dataset SET name = ?, name_key = ?, name_sequence = ? WHERE id = ?"
# `removed` is the sequence of the removal, 0 = not removed.
REMOVE = "UPDATE dataset SET removed = ? WHERE id = ? AND removed = 0"
ERASE = "UPDATE dataset SET removed = IIF(removed = 0, ?, removed), erased = 1, refused = 0 WHERE id = ?"
SET_NEXT_ORDINAL = "UPDATE dataset SET next_ordinal = MAX(next_ordinal, ? + 1) WHERE id = ?"
ADD_REFUSED = "UPDATE dataset SET refused = refused + ? WHERE id = ?"
SET_SETTINGS = "UPDATE dataset SET thresholds = ?, rules = ? WHERE id = ?"
SET_TEXT_SETTINGS = "UPDATE dataset SET text_settings = ?, text_sequence = ? WHERE id = ?"
KEEP_SETTING = "INSERT OR REPLACE INTO setting VALUES (?, ?, ?, ?)"
SET_REVISION = "UPDATE dataset SET revision_sequence = ?, revision_version = ?, revision_digest = ? WHERE id = ?"
SET_ETAG = "UPDATE dataset SET etag = ?, changed_at = ? WHERE id = ?"
SET_ETAG_BY_RUN = """
UPDATE dataset SET etag = :sequence, changed_at = :at
WHERE id = (SELECT dataset_id FROM tagging WHERE id = :run) AND etag < :sequence
"""

BY_ID = "SELECT * FROM dataset WHERE id = ?"
BY_NAME = "SELECT * FROM dataset WHERE name_key = ? AND removed = 0"
PAGE = "SELECT * FROM dataset WHERE removed = 0 AND created_sequence > ? ORDER BY created_sequence LIMIT ?"
COUNT = "SELECT COUNT(*) FROM dataset WHERE removed = 0"
SETTINGS = """
SELECT sequence, value FROM setting WHERE dataset_id = ? AND kind = ? AND sequence <= ? ORDER BY sequence DESC
"""
IS_REMOVED_AT = "SELECT removed BETWEEN 1 AND ? FROM dataset WHERE id = ?"
REFUSED_AT = "SELECT COUNT(*) FROM refusal WHERE dataset_id = ? AND sequence <= ?"
VERSION_AT = "SELECT MAX(number) FROM version WHERE dataset_id = ? AND sequence <= ?"
CURRENT_SETTINGS = "SELECT thresholds, rules FROM dataset WHERE id = ?"
CURRENT_TEXT_SETTINGS = "SELECT text_settings FROM dataset WHERE id = ?"
THRESHOLDS, RULES, TEXT_SETTINGS, NAME = "thresholds", "rules", "text_settings", "name"
"""Kinds of settings."""

_encode_sorted = msgspec.json.Encoder(order="deterministic").encode
_thresholds: msgspec.json.Decoder[ThresholdsSet] = msgspec.json.Decoder(ThresholdsSet)
_rules: msgspec.json.Decoder[RulesSet] = msgspec.json.Decoder(RulesSet)
_text_settings: msgspec.json.Decoder[TextSettingsSet] = msgspec.json.Decoder(TextSettingsSet)


SETTING_EVENTS = (DatasetCreated, DatasetRenamed, ThresholdsSet, RulesSet, TextSettingsSet)


class DatasetRow(msgspec.Struct, frozen=True, kw_only=True):
    """`revision` is what the next append expects; `etag` the last sequence that changed what clients see of it.

    `created_sequence`, `name_sequence` and `text_sequence` are those of its creation, its current name and its current
    text settings.
    """

    id: DatasetId
    name: str
    description: str
    removed: bool
    erased: bool
    revision_sequence: int
    revision_version: int
    revision_digest: str
    next_ordinal: int
    refused: int
    thresholds: ThresholdsSet
    rules: RulesSet
    text_settings: TextSettingsSet
    latest_version: int | None
    created_sequence: int
    name_sequence: int
    text_sequence: int
    etag: int
    created_at: datetime
    changed_at: datetime

    @property
    def revision(self) -> StreamRevision:
        return StreamRevision(self.revision_sequence, self.revision_version, self.revision_digest)

    @property
    def state(self) -> DatasetState:
        """What commands are decided from."""
        return DatasetState(
            name=self.name,
            thresholds=self.thresholds,
            rules=self.rules,
            text_settings=self.text_settings,
            erased=self.erased,
        )

    @property
    def acceptance(self) -> Acceptance:
        """Which predictions become tags of its images."""
        return _rules_of(self.thresholds, self.rules)


def apply(connection: Connection, batch: CommitBatch) -> None:
    batch.acceptance_of = acceptance_at
    for recorded, event in batch.events(*SETTING_EVENTS, DatasetRemoved, DatasetErased):
        _apply_event(connection, recorded, event)
    for toggle in batch.toggles:
        _restore_settings(connection, toggle)
    added = ((event.ordinal, recorded.commit.aggregate_id) for recorded, event in batch.events(ImageAdded))
    highest = {dataset_id: ordinal for ordinal, dataset_id in sorted(added)}
    connection.executemany(SET_NEXT_ORDINAL, [(ordinal, dataset_id) for dataset_id, ordinal in highest.items()])
    refused = Counter(recorded.commit.aggregate_id for recorded, _ in batch.events(ImageRefused))
    connection.executemany(ADD_REFUSED, [(number, dataset_id) for dataset_id, number in refused.items()])
    last = _last_commits(batch)
    connection.executemany(
        SET_REVISION, [(*revision_of(recorded), dataset_id) for dataset_id, recorded in last.items()]
    )
    _update_etags(connection, batch, last)


def _apply_event(connection: Connection, recorded: RecordedCommit, event: Event) -> None:
    dataset_id, sequence = recorded.commit.aggregate_id, recorded.sequence
    match event:
        case DatasetCreated(name=name, description=description):
            texts = {"id": dataset_id, "name": name, "name_key": name_key(name), "description": description}
            created = {"sequence": sequence, "at": recorded.commit.at.isoformat()}
            settings = {
                "thresholds": _encode_sorted(DEFAULT_THRESHOLDS),
                "rules": _encode_sorted(RulesSet()),
                "text_settings": _encode_sorted(TextSettingsSet()),
            }
            connection.execute(CREATE, texts | settings | created)
            connection.execute(KEEP_SETTING, (dataset_id, NAME, sequence, name.encode()))
        case DatasetRenamed(name=name):
            connection.execute(RENAME, (name, name_key(name), sequence, dataset_id))
            connection.execute(KEEP_SETTING, (dataset_id, NAME, sequence, name.encode()))
        case DatasetRemoved():
            connection.execute(REMOVE, (sequence, dataset_id))
        case DatasetErased():
            connection.execute(ERASE, (sequence, dataset_id))
        case ThresholdsSet():
            _set_setting(connection, dataset_id, THRESHOLDS, sequence, _encode_sorted(event))
        case RulesSet():
            _set_setting(connection, dataset_id, RULES, sequence, _encode_sorted(event))
        case TextSettingsSet():
            value = _encode_sorted(event)
            connection.execute(KEEP_SETTING, (dataset_id, TEXT_SETTINGS, sequence, value))
            connection.execute(SET_TEXT_SETTINGS, (value, sequence, dataset_id))
        case _:
            pass


def _set_setting(connection: Connection, dataset_id: str, kind: str, sequence: int, value: bytes) -> None:
    connection.execute(KEEP_SETTING, (dataset_id, kind, sequence, value))
    connection.execute(f"UPDATE dataset SET {kind} = ? WHERE id = ?", (value, dataset_id))  # noqa: S608 - our columns


def _restore_settings(connection: Connection, toggle: Toggle) -> None:
    """The latest settings of the commits that count now."""
    dataset_id = toggle.dataset_id
    row = find(connection, dataset_id)
    if row is None:
        return
    acceptance = settings_at(connection, dataset_id)
    connection.execute(SET_SETTINGS, (*map(_encode_sorted, acceptance), dataset_id))
    text_settings = text_settings_at(connection, dataset_id)
    if text_settings != row.text_settings:
        connection.execute(SET_TEXT_SETTINGS, (_encode_sorted(text_settings), toggle.sequence, dataset_id))
    name = name_at(connection, dataset_id)
    if name != row.name:
        connection.execute(RENAME, (name, name_key(name), toggle.sequence, dataset_id))


def _last_commits(batch: CommitBatch) -> dict[str, RecordedCommit]:
    """The last commit of each data set."""
    commits = (recorded for recorded in batch.commits if recorded.commit.aggregate_kind == "dataset")
    return {recorded.commit.aggregate_id: recorded for recorded in commits}


def _update_etags(connection: Connection, batch: CommitBatch, last: dict[str, RecordedCommit]) -> None:
    """What clients see of a data set is changed by its own events and by those of tagging runs on it."""
    own = [(recorded.sequence, recorded.commit.at.isoformat(), dataset_id) for dataset_id, recorded in last.items()]
    connection.executemany(SET_ETAG, own)
    runs = {recorded.commit.aggregate_id: recorded for recorded, _ in batch.events(TaggingPredicted)}
    by_run = (
        {"sequence": recorded.sequence, "at": recorded.commit.at.isoformat(), "run": run}
        for run, recorded in runs.items()
    )
    connection.executemany(SET_ETAG_BY_RUN, by_run)


def name_key(name: str) -> str:
    """Names that differ only in case or Unicode composition are the same name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def find(connection: Connection, ref: str) -> DatasetRow | None:
    """By id (also when removed), else by name (not when removed)."""
    by_id = fetch_one(connection, DatasetRow, BY_ID, (ref,))
    return by_id or fetch_one(connection, DatasetRow, BY_NAME, (name_key(ref),))


def is_name_taken(connection: Connection, name: str) -> bool:
    return connection.execute(BY_NAME, (name_key(name),)).fetchone() is not None


def page(connection: Connection, after: int, limit: int) -> list[DatasetRow]:
    """In creation order, those created after a sequence."""
    return fetch(connection, DatasetRow, PAGE, (after, limit))


def ids(connection: Connection) -> list[DatasetId]:
    """Of all data sets, in creation order."""
    return [row.id for row in page(connection, 0, MAX_SEQUENCE)]


def count(connection: Connection) -> int:
    return fetch_number(connection, COUNT)


def settings_at(connection: Connection, dataset_id: str, until: int = MAX_SEQUENCE) -> tuple[ThresholdsSet, RulesSet]:
    """Thresholds and rules as of a sequence of the log."""
    thresholds = _setting(connection, dataset_id, THRESHOLDS, until)
    rules = _setting(connection, dataset_id, RULES, until)
    return (
        DEFAULT_THRESHOLDS if thresholds is None else _thresholds.decode(thresholds),
        RulesSet() if rules is None else _rules.decode(rules),
    )


def text_settings_at(connection: Connection, dataset_id: str, until: int = MAX_SEQUENCE) -> TextSettingsSet:
    """How its training texts are written, as of a sequence of the log."""
    settings = _setting(connection, dataset_id, TEXT_SETTINGS, until)
    return TextSettingsSet() if settings is None else _text_settings.decode(settings)


def current_text_settings(connection: Connection, dataset_id: str) -> TextSettingsSet:
    """The same now, from the row of the data set."""
    settings = fetch_value(connection, CURRENT_TEXT_SETTINGS, (dataset_id,))
    return TextSettingsSet() if settings is None else _text_settings.decode(settings)


def find_at(connection: Connection, dataset_id: str, until: int) -> DatasetRow | None:
    """What a data set was as of a sequence: its name, settings and numbers, but not when it had changed last.

    None: it did not exist yet.
    """
    row = find(connection, dataset_id)
    if row is None or row.created_sequence > until:
        return None
    thresholds, rules = settings_at(connection, dataset_id, until)
    return msgspec.structs.replace(
        row,
        name=name_at(connection, dataset_id, until),
        removed=fetch_number(connection, IS_REMOVED_AT, (until, dataset_id)) == 1,
        refused=fetch_number(connection, REFUSED_AT, (dataset_id, until)),
        thresholds=thresholds,
        rules=rules,
        text_settings=text_settings_at(connection, dataset_id, until),
        latest_version=fetch_value(connection, VERSION_AT, (dataset_id, until)),
    )


def name_at(connection: Connection, dataset_id: str, until: int = MAX_SEQUENCE) -> str:
    return str(_setting(connection, dataset_id, NAME, until) or b"", "utf-8")


def name_without(connection: Connection, dataset_id: str, void: AbstractSet[int]) -> str:
    """The name of a data set if these commits did not count."""
    rows = connection.execute(SETTINGS, (dataset_id, NAME, MAX_SEQUENCE))
    return next((str(row["value"], "utf-8") for row in rows if row["sequence"] not in void), "")


def has_other_rules(connection: Connection, toggle: Toggle) -> bool:
    """Whether an undo changed the thresholds or rules."""
    before, after = (settings_at(connection, toggle.dataset_id, at) for at in (toggle.sequence - 1, toggle.sequence))
    return before != after


def acceptance_at(connection: Connection, dataset_id: str, until: int = MAX_SEQUENCE) -> Acceptance:
    """Which predictions become tags of its images, as of a sequence of the log."""
    return _rules_of(*settings_at(connection, dataset_id, until))


def current_acceptance(connection: Connection, dataset_id: str) -> Acceptance:
    """The same now, from the row of the data set."""
    row = connection.execute(CURRENT_SETTINGS, (dataset_id,)).fetchone()
    if row is None:
        return _rules_of(DEFAULT_THRESHOLDS, RulesSet())
    return _rules_of(_thresholds.decode(row["thresholds"]), _rules.decode(row["rules"]))


def _rules_of(thresholds: ThresholdsSet, rules: RulesSet) -> Acceptance:
    return rules_of(thresholds.categories, thresholds.tags, rules.deny)


def _setting(connection: Connection, dataset_id: str, kind: str, until: int) -> bytes | None:
    """The latest value, as of a sequence, among the commits that count as of then."""
    voided = undos.voided(connection, dataset_id, None if until == MAX_SEQUENCE else until)
    rows = connection.execute(SETTINGS, (dataset_id, kind, until))
    return next((row["value"] for row in rows if row["sequence"] not in voided), None)
