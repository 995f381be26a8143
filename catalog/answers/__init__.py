"""Every question of `contracts.queries`, answered from the read model, the archive, the keys and the blobs."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from catalog.answers import datasets, erasures, history, images, log, presets, work
from catalog.answers.datasets import Manifests
from catalog.answers.erasures import Left
from catalog.answers.past import Past
from catalog.answers.shelf import Shelf
from catalog.archive import Archive
from catalog.keys import Keys
from catalog.store import Store
from contracts import queries
from contracts.queries import Query
from contracts.wire.blobs import Blobs

__all__ = ["Answers"]

Handler = Callable[[Any], Awaitable[msgspec.Struct]]


class Answers:
    """`handlers()` is what `contracts.wire.service.Service.start(queries=…)` wants."""

    def __init__(self, store: Store, archive: Archive, keys: Keys, blobs: Blobs, left: Left) -> None:
        self._shelf = Shelf(store, archive, keys, blobs)
        self._manifests = Manifests(self._shelf)
        self._left = left
        self._past = Past(self._shelf)

    def handlers(self) -> dict[type[Query[Any]], Handler]:
        plain: dict[type[Query[Any]], Callable[[Shelf, Any], Awaitable[msgspec.Struct]]] = {
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
        return {query: partial(answer, self._shelf) for query, answer in plain.items()} | {
            queries.GetDataset: self._past.get_dataset,
            queries.GetImage: self._past.get_image,
            queries.GetJob: self._past.get_job,
            queries.GetErasure: partial(erasures.get_erasure, self._shelf, self._left),
            queries.ReadManifest: self._manifests.read_manifest,
            queries.ListSamples: partial(work.list_samples, self._shelf, self._manifests),
        }
