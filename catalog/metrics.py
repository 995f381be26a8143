"""Metrics of the catalog: jobs, queue, attempts, lag, blobs, files."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client.metrics_core import Metric

from catalog.archive.archive import Archive
from catalog.database import Connection
from catalog.store import Store
from catalog.views import foreign as foreign_messages
from catalog.views import totals
from contracts.subjects import Priority, WorkClass
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.metrics import ServiceMetrics, counter, gauge

QueueDepth = Mapping[tuple[WorkClass, Priority], int]
BLOB_TOTALS_SECONDS = 60.0
"""Age at which the totals of blobs are counted again: it reads all rows of images."""


class CatalogMetrics:
    """Its sources are asked at each scrape; `queue_depth` returns what the dispatcher last saw in the queue.

    `text_bytes`: the memory of the indexes of names and captions.
    """

    def __init__(
        self,
        store: Store,
        archive: Archive,
        log: EventLog,
        *,
        queue_depth: Callable[[], QueueDepth],
        text_bytes: Callable[[], int],
    ) -> None:
        self._store = store
        self._archive = archive
        self._log = log
        self._queue_depth = queue_depth
        self._text_bytes = text_bytes
        self._blobs: tuple[float, list[totals.BlobTotal]] = (float("-inf"), [])

    def add_to(self, metrics: ServiceMetrics, files: Path) -> None:
        """`files`: the folder of the databases."""
        metrics.add("work", self._work)
        metrics.add("queue", self._queue)
        metrics.add("log", self._positions)
        metrics.add("blob", self._blob_totals)
        metrics.add("text", self._text_index)
        metrics.add("file", lambda: _file_sizes(files))

    async def _work(self) -> list[Metric]:
        def read(connection: Connection) -> tuple[list[totals.WorkTotal], list[totals.WorkTotal]]:
            return totals.work_by_state(connection), totals.attempts_by_end(connection)

        work, attempts = await self._store.read(read)
        started: Counter[str] = Counter()
        for total in attempts:
            started[total.work_class] += total.count
        return [
            gauge(
                *("loratory_jobs", "Jobs (class train) and tagging runs (class tag) by state", ["class", "state"]),
                [((total.work_class, total.state), total.count) for total in work],
            ),
            counter(
                *("loratory_attempts_started", "Attempts started", ["class"]),
                [((work_class,), count) for work_class, count in started.items()],
            ),
            counter(
                *("loratory_attempts_ended", "Attempts ended, by how", ["class", "outcome"]),
                [((total.work_class, total.state), total.count) for total in attempts if total.state],
            ),
        ]

    async def _queue(self) -> list[Metric]:
        now, ages = datetime.now(UTC), []
        for queued in await self._store.read(totals.oldest_queued):
            recorded = await self._archive.recorded_at(queued.oldest)
            if recorded is not None:
                ages.append(((queued.work_class, queued.priority), (now - recorded).total_seconds()))
        labels = ["class", "priority"]
        return [
            gauge("loratory_queue_messages", "Messages in the queue, waiting or in work", labels, self._depth()),
            gauge("loratory_queue_oldest_age_seconds", "Time since the oldest waiting job was queued", labels, ages),
        ]

    def _depth(self) -> list[tuple[tuple[str, str], float]]:
        return [(key, float(count)) for key, count in self._queue_depth().items()]

    async def _positions(self) -> list[Metric]:
        applied = self._store.applied
        _, end = await self._log.end()
        foreign = await self._store.read(foreign_messages.count)
        return [
            gauge("loratory_log_end_sequence", "Sequence of the newest commit of the log", (), [((), end)]),
            gauge("loratory_applied_sequence", "Sequence that queries show", (), [((), applied)]),
            gauge("loratory_log_foreign_messages", "Messages that nobody known appended", (), [((), foreign)]),
            gauge("loratory_archived_sequence", "Sequence that is archived", (), [((), self._archive.tail.sequence)]),
            gauge(
                "loratory_log_lag_commits", "Commits that queries do not show yet", (), [((), max(0, end - applied))]
            ),
        ]

    async def _text_index(self) -> list[Metric]:
        size = [((), float(self._text_bytes()))]
        return [gauge("loratory_text_index_bytes", "Memory of the names and captions that are searched", (), size)]

    async def _blob_totals(self) -> list[Metric]:
        counted_at, found = self._blobs
        now = datetime.now(UTC).timestamp()
        if now - counted_at > BLOB_TOTALS_SECONDS:
            found = await self._store.read(totals.blobs)
            self._blobs = (now, found)
        sizes = [((total.kind,), float(total.bytes)) for total in found if total.bytes is not None]
        counts = [((total.kind,), float(total.count)) for total in found]
        return [
            gauge("loratory_blobs", "Blobs that the log names", ["kind"], counts),
            gauge("loratory_blob_bytes", "Their sizes in the log, together", ["kind"], sizes),
        ]


async def _file_sizes(folder: Path) -> list[Metric]:
    sizes = [((file.name,), float(file.stat().st_size)) for file in sorted(folder.glob("*.db"))]
    return [gauge("loratory_database_bytes", "Size of a database file", ["file"], sizes)]
