"""What holds for each tag and image after an undo, found with sets where edits of many images are concerned."""

from collections.abc import Iterable

from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.edits import Edit, SetChoice, set_choices
from catalog.views import bulk_history, bulk_latest, edits
from catalog.views.batch import CommitBatch, Toggle
from catalog.views.tag_sets import DatasetTags

TABLES = ""


def apply(connection: Connection, batch: CommitBatch) -> None:
    """Brings the sets of all tags that the toggled commits edited up to date."""
    for toggle in batch.toggles:
        tags = DatasetTags(connection, toggle.dataset_id)
        _decide_again(connection, toggle, tags)
        tags.save()


def _decide_again(connection: Connection, toggle: Toggle, tags: DatasetTags) -> None:
    own = edits.edited_by(connection, toggle)
    if own:
        _decide_images(connection, toggle, tags, own)
    edited = bulk_history.edited_by(connection, toggle.dataset_id, toggle.commits)
    tags.load(edited)
    for tag, images in edited.items():
        _decide_tag(connection, tags, tag, images)


def _decide_images(connection: Connection, toggle: Toggle, tags: DatasetTags, ordinals: BitMap) -> None:
    """Of images whose own edits were undone: the tags of those edits."""
    edited = edits.tags_edited_by(connection, toggle, ordinals)
    tags.load({tag for some in edited.values() for tag in some})
    own = edits.held_edits(connection, toggle.dataset_id, ordinals)
    all_edits = edits.edits_of(connection, toggle.dataset_id, list(ordinals))
    for ordinal, some in edited.items():
        kept, holding = _choices(own.get(ordinal, ())), _choices(all_edits[ordinal])
        image = BitMap([ordinal])
        for tag in some:
            tags[tag].decide_own(image, kept.get(tag))
            tags[tag].decide(image, holding.get(tag, "withdrawn"))


def _decide_tag(connection: Connection, tags: DatasetTags, tag: int, images: BitMap) -> None:
    """One tag of many images: the latest of the edits that count, of many images or kept with the image."""
    sets = tags[tag]
    sets.begin_bulk()
    latest = bulk_latest.of_tag(connection, tags.dataset_id, tag)
    bulk = bulk_history.at(connection, tags.dataset_id, latest)
    of_tag = [(place, ordinals & images, _choices([bulk[place]])[tag]) for place, ordinals in latest.items()]
    result = {choice: ordinals & images for choice, ordinals in sets.own().items()}
    undecided = images - BitMap.union(*result.values())
    result["withdrawn"] |= undecided
    contested = BitMap.union(BitMap(), *(ordinals for _, ordinals, _ in of_tag)) - undecided
    own = edits.held_edits(connection, tags.dataset_id, contested) if contested else {}
    places = {ordinal: _place(some, tag) for ordinal, some in own.items()}
    for place, ordinals, choice in of_tag:
        later = BitMap(ordinal for ordinal in ordinals & contested if places.get(ordinal, (0, 0)) < place)
        taken = (ordinals - contested) | later
        for name, found in result.items():
            result[name] = found | taken if name == choice else found - taken
    for choice, ordinals in result.items():
        sets.decide(ordinals, choice)


def _choices(some: Iterable[Edit]) -> dict[int, SetChoice]:
    return {tag: choice for edit in some for tag, choice in set_choices(edit)}


def _place(some: Iterable[Edit], tag: int) -> tuple[int, int]:
    return max((edit.place for edit in some if tag in edit.tags), default=(0, 0))
