"""The messages between the catalog and the child process that reads for a version: a plan, then pages."""

from catalog.domain.manifest import EncodedPage
from catalog.freezing.source import FreezePlan, PageRequest, Unsettled
from contracts.wire.system.pipe import Frames

MAX_FRAME_BYTES = 256 << 20
"""A page has a thousand images, each with at most 1,000 tags, and a caption."""

PLANS: Frames[FreezePlan | Unsettled] = Frames(FreezePlan | Unsettled, MAX_FRAME_BYTES)
REQUESTS: Frames[PageRequest] = Frames(PageRequest, MAX_FRAME_BYTES)
PAGES: Frames[EncodedPage] = Frames(EncodedPage, MAX_FRAME_BYTES)
