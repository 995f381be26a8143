"""The handlers of all queries of `contracts.queries`: they read the read model, the archive, the keys and the blobs."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from catalog.archive import Archive
from catalog.keys import Keys
from catalog.query_handlers import datasets, erasures, history, images, log, presets, work
from catalog.query_handlers.context import QueryContext
from catalog.query_handlers.datasets import ManifestReader
from catalog.query_handlers.erasures import PendingPurges
from catalog.query_handlers.historical import HistoricalQueries
from catalog.store import Store
from contracts import queries
from contracts.queries import Query
from contracts.wire.blobs import Blobs

__all__ = ["QueryHandlers"]

Handler = Callable[[Any], Awaitable[msgspec.Struct]]


class QueryHandlers:
    """`handlers()` is the argument `queries` of `contracts.wire.service.Service.start`."""

    def __init__(self, store: Store, archive: Archive, keys: Keys, blobs: Blobs, pending_purges: PendingPurges) -> None:
        self._context = QueryContext(store, archive, keys, blobs)
        self._manifests = ManifestReader(self._context)
        self._pending_purges = pending_purges
        self._historical = HistoricalQueries(self._context)

    def handlers(self) -> dict[type[Query[Any]], Handler]:
        functions: dict[type[Query[Any]], Callable[[QueryContext, Any], Awaitable[msgspec.Struct]]] = {
            queries.ListDatasets: datasets.list_datasets,
            queries.ListImages: images.list_images,
            queries.ListRefusals: datasets.list_refusals,
            queries.ListErased: erasures.list_erased,
            queries.ListTags: datasets.list_tags,
            queries.ListVersions: datasets.list_versions,
            queries.GetVersion: datasets.get_version,
            queries.ListTagging: work.list_tagging,
            queries.GetTagging: work.get_tagging,
            queries.ReadTaggingWork: work.read_tagging_work,
            queries.ListPresets: presets.list_presets,
            queries.GetPreset: presets.get_preset,
            queries.ListJobs: work.list_jobs,
            queries.ListCheckpoints: work.list_checkpoints,
            queries.ListEvents: log.list_events,
            queries.ListJobHistory: history.list_job_history,
            queries.ListImageHistory: history.list_image_history,
            queries.ListDatasetHistory: history.list_dataset_history,
            queries.GetLog: log.get_log,
        }
        return {query: partial(function, self._context) for query, function in functions.items()} | {
            queries.GetDataset: self._historical.get_dataset,
            queries.GetImage: self._historical.get_image,
            queries.GetJob: self._historical.get_job,
            queries.GetErasure: partial(erasures.get_erasure, self._context, self._pending_purges),
            queries.ReadManifest: self._manifests.read_manifest,
            queries.ListSamples: partial(work.list_samples, self._context, self._manifests),
        }
