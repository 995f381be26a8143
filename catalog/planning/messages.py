"""The messages between the catalog and the child process that makes plans."""

import msgspec

from catalog.views.predicted_tags import ApplyRules, PredictAgain, PredictedTags
from contracts.wire.system.pipe import Frames

MAX_FRAME_BYTES = 1 << 30
"""A plan has two sets of images of each tag: 12 MB for 100,000 images with 10,000 tags."""


class PlanRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of a step is to be made, from the current rows of this read model."""

    read_model: str
    step: ApplyRules | PredictAgain


REQUESTS: Frames[PlanRequest] = Frames(PlanRequest, MAX_FRAME_BYTES)
PLANS: Frames[PredictedTags] = Frames(PredictedTags, MAX_FRAME_BYTES)
