"""The rules of data sets: names, thresholds, removal and erasure. Pure: rows in, events out."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from contracts.commands.base import RESERVED_NAMES
from contracts.commands.datasets import (
    CreateDataset,
    EraseDataset,
    RemoveDataset,
    RenameDataset,
    SetRules,
    SetTextSettings,
    SetThresholds,
)
from contracts.errors import InUse, Rejected
from contracts.events.base import Category, Event
from contracts.events.datasets import (
    DatasetCreated,
    DatasetErased,
    DatasetRemoved,
    DatasetRenamed,
    RulesSet,
    TextSettingsSet,
    ThresholdsSet,
)
from contracts.names import require_printable
from contracts.tags import STORED_FLOOR, canonicalize
from contracts.texts.writing import check_style
from contracts.training_text import TEXT_VERSION, require_rule

MAX_NAMED_JOBS = 10


@dataclass(frozen=True, kw_only=True)
class DatasetState:
    """What commands on a data set are decided from. `name_taken`: another data set has the name that is asked for.

    `active_jobs` wait for or train on one of its versions. The defaults are those of a data set to be created.
    """

    name: str = ""
    thresholds: ThresholdsSet | None = None
    rules: RulesSet | None = None
    text_settings: TextSettingsSet | None = None
    erased: bool = False
    name_taken: bool = False
    active_jobs: Sequence[str] = ()


DatasetChange = RemoveDataset | SetThresholds | SetRules | SetTextSettings
"""Commands that are decided from the data set's own row."""


def decide(dataset: DatasetState, command: CreateDataset | RenameDataset | EraseDataset | DatasetChange) -> list[Event]:
    """The events that a command causes in a data set; none if nothing changes."""
    match command:
        case CreateDataset(name=name, description=description):
            return [DatasetCreated(name=_free_name(dataset, name), description=description)]
        case RenameDataset(name=name):
            renamed = DatasetRenamed(name=_free_name(dataset, name))
            return [] if renamed.name == dataset.name else [renamed]
        case RemoveDataset():
            return [DatasetRemoved()]
        case SetThresholds():
            thresholds = _checked_thresholds(command)
            return [] if thresholds == dataset.thresholds else [thresholds]
        case SetRules(deny=deny):
            rules = RulesSet(deny=tuple(sorted({canonicalize(tag) for tag in deny})))
            return [] if rules == dataset.rules else [rules]
        case SetTextSettings():
            settings = _checked_text_settings(command)
            return [] if settings == dataset.text_settings else [settings]
        case EraseDataset():
            if dataset.erased:
                return []
            refuse_if_in_use(dataset.active_jobs)
            return [DatasetErased()]


def _checked_thresholds(command: SetThresholds) -> ThresholdsSet:
    """Rejected: below the floor there are no predictions that could become tags."""
    of_tags = {canonicalize(tag): above for tag, above in command.tags.items()}
    for name, above in (*command.categories.items(), *of_tags.items()):
        if above < STORED_FLOOR:
            raise Rejected(
                f"the threshold of {name!r} is below {STORED_FLOOR:g}, and predictions are stored from there on only"
            )
    categories: dict[Category, float] = {category: above for category, above in command.categories.items()}  # noqa: C416 - for mypy: keys of a wider type
    return ThresholdsSet(categories=categories, tags=of_tags)


def _checked_text_settings(command: SetTextSettings) -> TextSettingsSet:
    """Rejected: there is no such template, or a pattern of tags to keep is not allowed."""
    require_rule(TEXT_VERSION, command.template)
    check_style(command.style)
    require_printable("trigger", command.trigger.strip())
    return TextSettingsSet(
        trigger=command.trigger.strip(), template=command.template, style=command.style, read_as=command.read_as
    )


def normalize_name(name: str) -> str:
    """The stored form of the name of a data set or preset; Rejected if it is not a valid name."""
    normalized = " ".join(unicodedata.normalize("NFC", name).split())
    invalid = set(normalized) & set("/\\?#%") or any(unicodedata.category(char)[0] == "C" for char in normalized)
    if not normalized or invalid:
        raise Rejected(
            f"{name!r} is not a valid name: it must not be empty or contain / \\ ? # % or control characters"
        )
    reserved = normalized in (".", "..") or normalized.casefold() in RESERVED_NAMES
    if reserved or normalized.startswith(("ds_", "img_", "job_")):
        raise Rejected(f"the name {normalized!r} is reserved; choose another", reason="reserved-name")
    return normalized


def _free_name(dataset: DatasetState, name: str) -> str:
    normalized = normalize_name(name)
    if dataset.name_taken:
        raise Rejected(f"there is a data set called {normalized!r} already", reason="name-taken")
    return normalized


def refuse_if_in_use(jobs: Sequence[str]) -> None:
    """Images that a job waits for or trains on cannot be erased: InUse names the jobs."""
    if jobs:
        named = ", ".join(jobs[:MAX_NAMED_JOBS]) + (" and others" if len(jobs) > MAX_NAMED_JOBS else "")
        detail = f"jobs wait for or train on it: {named}; let them end, or cancel them"
        raise InUse(detail, jobs=list(jobs[:MAX_NAMED_JOBS]))
