"""Queries about lost blobs and keys."""

from contracts.ids import Digest
from contracts.losses import BlobAudit, Loss
from contracts.queries.base import Page, Query, QueryPage, View


class BlobView(View, frozen=True):
    """A blob that is there; `size` in bytes."""

    blob: Digest
    size: int


class ListLosses(QueryPage[Page[Loss]], frozen=True):
    """Everything that is missing: as of the last comparison, and what was noticed since."""


class GetBlob(Query[BlobView], frozen=True):
    """A blob that could not be read: a derived one is made again now.

    NotFound: nothing names it. BlobMissing: it is missing. Lost: its loss was accepted.
    """

    blob: Digest


class StartBlobAudit(Query[BlobAudit], frozen=True):
    """Read all blobs and compare their bytes with their digests. Conflict: that is being done already."""


class GetBlobAudit(Query[BlobAudit], frozen=True):
    """The check in progress, or the result of the last one."""
