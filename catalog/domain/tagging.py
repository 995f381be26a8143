"""The rules of tagging runs, before a worker has one. Pure."""

from collections.abc import Collection

from pyroaring import BitMap

from catalog.domain.image_sets import image_set
from contracts.commands.tagging import RequestTagging
from contracts.errors import Rejected
from contracts.events.base import Event
from contracts.events.tagging import TaggingQueued, TaggingRequested
from contracts.ids import DatasetId


def request(
    command: RequestTagging, *, dataset_id: DatasetId, dataset: str, images: Collection[int], covered: Collection[int]
) -> list[Event]:
    """The events of a new run over a data set's images, by ordinal; `covered`: those that this model has processed."""
    if not images:
        raise Rejected(f"the data set {dataset!r} is empty; import images first", reason="empty-dataset")
    selected = BitMap(images) - BitMap(covered) if command.only_new else BitMap(images)
    if not selected:
        raise Rejected(f"this model has covered every image of {dataset!r} already", reason="nothing-new")
    requested = TaggingRequested(
        dataset_id=dataset_id,
        dataset=dataset,
        model=command.model,
        priority=command.priority,
        images=image_set(selected),
        count=len(selected),
    )
    return [requested, TaggingQueued(priority=command.priority)]
