"""The catalog's metrics: jobs by state, queue, attempts, lag, blobs."""

import sqlite3
from contextlib import closing

from catalog import views
from catalog.views import totals
from contracts.commands.jobs import CreateJob
from contracts.commands.tagging import RequestTagging
from contracts.events.jobs import JobAttemptFailed, JobAttemptStarted, JobCheckpointed, JobInterrupted
from contracts.ids import Digest, WorkerId
from contracts.wire.service.metrics import ServiceMetrics
from tests.catalog.harness import CatalogHarness
from tests.catalog.log_builder import full_history
from tests.contracts.test_metrics import samples

STARTED = JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0)


async def scrape(harness: CatalogHarness) -> dict[str, float]:
    metrics = ServiceMetrics("catalog", harness.bus)
    harness.catalog.add_metrics(metrics)
    return samples(await metrics.text())


async def test_jobs_attempts_and_the_queue_are_counted(harness: CatalogHarness) -> None:
    await harness.dataset(pictures=2)
    ids = [(await harness.create_job(CreateJob(dataset="cats", start=start))).id for start in (True, True, False)]
    await harness.execute(RequestTagging(dataset="cats", model="demo"))
    attempt = await harness.append("job", ids[0], STARTED)
    await harness.append("job", ids[0], JobCheckpointed(attempt=attempt, step=3, checkpoint=Digest("1" * 64), size=900))
    await harness.append("job", ids[0], JobInterrupted(attempt=attempt, step=3, reason="stopped"))
    attempt = await harness.append("job", ids[0], STARTED)
    await harness.append("job", ids[0], JobAttemptFailed(attempt=attempt, step=3, reason="killed"))
    await harness.append("job", ids[1], STARTED)
    for work_class in ("train", "tag"):
        await harness.catalog.dispatcher.reconcile(work_class)
    found = await scrape(harness)
    assert found["loratory_jobs/train/running"] == 1
    assert found["loratory_jobs/tag/queued"] == 1
    assert found["loratory_attempts_started_total/train"] == 3
    assert found["loratory_attempts_ended_total/train/interrupted"] == 1
    assert found["loratory_attempts_ended_total/train/crashed"] == 1
    assert found["loratory_queue_messages/train/normal"] == 2
    assert found["loratory_queue_messages/tag/normal"] == 1
    assert found["loratory_queue_messages/tag/high"] == 0
    assert found["loratory_queue_oldest_age_seconds/tag/normal"] >= 0
    assert "loratory_queue_oldest_age_seconds/tag/high" not in found
    assert (found["loratory_blobs/checkpoint"], found["loratory_blob_bytes/checkpoint"]) == (1, 900)
    assert (found["loratory_blobs/source"], found["loratory_blob_bytes/source"]) == (2, 1234 + 1235)


async def test_the_lag_is_the_log_less_what_queries_show(harness: CatalogHarness) -> None:
    await harness.dataset()
    found = await scrape(harness)
    end = (await harness.executor.log.end())[1]
    assert found["loratory_log_end_sequence"] == found["loratory_applied_sequence"] == end > 0
    assert found["loratory_archived_sequence"] == end
    assert found["loratory_log_lag_commits"] == 0
    harness.executor.store.applied -= 1
    assert (await scrape(harness))["loratory_log_lag_commits"] == 1


async def test_the_rest_is_shown_while_the_log_does_not_answer(harness: CatalogHarness) -> None:
    await harness.dataset()
    await harness.bus.close()
    found = await scrape(harness)
    assert "loratory_log_end_sequence" not in found
    assert found["loratory_bus_connected"] == 0
    assert found["loratory_database_bytes/read.db"] > 0


def test_totals_count_every_row_once() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.executescript(views.TABLES)
        views.apply(connection, full_history().commits)
        assert sum(total.count for total in totals.work_by_state(connection)) == count(connection, "work")
        assert sum(total.count for total in totals.attempts_by_end(connection)) == count(connection, "attempt")
        blobs = {total.kind: total.count for total in totals.blobs(connection)}
        tables = {"source": "image", "checkpoint": "checkpoint_of_job", "sample": "sample"}
        assert {kind: blobs[kind] for kind in tables} == {
            kind: count(connection, table) for kind, table in tables.items()
        }
        assert blobs["lora"] > 0


def count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])  # noqa: S608 - our own names
