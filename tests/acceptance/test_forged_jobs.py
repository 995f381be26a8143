"""Forged commits that land on jobs that wait and jobs that train, by each road; the jobs go on to their ends."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from contracts.events.datasets import DatasetRenamed
from contracts.events.jobs import JobAttemptFailed, JobAttemptStarted, JobCancelled, JobRemoved, JobSucceeded
from contracts.events.tagging import TaggingPredicted
from contracts.ids import WorkerId
from contracts.signatures import SigningKey
from contracts.telemetry import TrainingProgress
from loratory.responses import Job
from tests.acceptance.event_recorder import TIMEOUT_SECONDS, draw_pictures
from tests.acceptance.forged_commits import Forger, foreign_sequences, key_of, with_schema
from tests.acceptance.local_stack import LocalStack
from tests.acceptance.test_kills import RECIPE
from tests.limits import WAIT

pytestmark = [pytest.mark.drill]

API = "/api/v1"
STEPS = 100
CHANGES = RECIPE | {"length": {"type": "steps", "count": STEPS}, "save.every": 20}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[LocalStack]:
    """One of its own: what is forged stays in its log."""
    stack = LocalStack(tmp_path / "data")
    stack.start()
    yield stack
    stack.stop()


def test_jobs_are_trained_to_their_ends_whatever_lands_on_them(stack: LocalStack, tmp_path: Path) -> None:
    with stack.client() as client, stack.http() as http:
        dataset = client.create_dataset("cats").id
        client.import_files(dataset, draw_pictures(tmp_path / "pictures", 4))
        run = client.tag(dataset, "demo").id
        client.wait_tagging(run, timeout=WAIT)  # a tagger registers its key with its first work
        training = client.train(dataset, name="first", trigger="crtr", changes=CHANGES).id
        wait_until(lambda: step_of(client.job(training)))
        waiting = client.train(dataset, name="second", trigger="crtr", changes=CHANGES).id

        forger = Forger(stack)
        for job in (training, waiting):
            forge_by_each_road(forger, stack, job)
        assert (client.job(training).status, client.job(waiting).status) == ("running", "pending")
        client.set_job_description(waiting, "edited after the forgeries")

        for job in (training, waiting):
            ended = client.wait_job(job, timeout=TIMEOUT_SECONDS)
            assert (ended.status, ended.error) == ("completed", None)
            assert [attempt.ended for attempt in ended.attempts] == ["succeeded"]
            assert http.get(f"{API}/jobs/{job}/metrics").json()["steps"] == list(range(1, STEPS + 1))
            for artifact in client.artifacts(job):
                assert client.download(job, artifact, tmp_path).stat().st_size == artifact.size
        names = [(client.job(job).name, client.job(job).description) for job in (training, waiting)]
        assert names == [("first", ""), ("second", "edited after the forgeries")]
        loras = [stack.data / "loras" / f"{name}.safetensors" for name in ("first", "second")]
        wait_until(lambda: all(lora.is_file() for lora in loras))
        assert foreign_sequences(http, forger.sequences[-1]) == forger.sequences
        report = http.post(f"{API}/audit/verify").raise_for_status().json()
        assert (report["damage"], report["foreign"]) == ([], len(forger.sequences))


def forge_by_each_road(forger: Forger, stack: LocalStack, job: str) -> None:
    """Everything that would end, restart, rename or remove the job if it were believed."""
    started = JobAttemptStarted(worker=WorkerId("wrk_thief"), boot="b", resumes=0)
    ended = JobSucceeded(attempt=1, step=1, artifacts=())
    forger.forge("job", job, ended)
    forger.forge("job", job, started, key=SigningKey.generate())
    forger.forge("job", job, JobCancelled(step=1), key=key_of(stack, "catalog"), log_id="another")
    forger.publish("job", job, b"\xff\x00 garbage", signature="nothing")
    # Keys of services, each for what only another service may say.
    forger.forge("job", job, ended, key=key_of(stack, "tagger"))
    forger.forge("job", job, ended, key=key_of(stack, "catalog"))
    forger.forge("job", job, JobRemoved(), key=key_of(stack, "trainer"))
    forger.forge("job", job, DatasetRenamed(name="stolen"), key=key_of(stack, "catalog"))
    # What nobody can read or store, signed by those who may say it.
    failed = JobAttemptFailed(attempt=1, step=1, reason="it crashed")
    forger.forge("job", job, failed, key=key_of(stack, "trainer"), change=with_schema(99))
    forger.forge("job", job, JobRemoved(), key=key_of(stack, "catalog"), change=with_schema(99))
    forger.forge("job", job, msgspec.structs.replace(failed, step=2**63), key=key_of(stack, "trainer"))
    predicted = TaggingPredicted(attempt=1, images=())
    forger.forge("tagging", f"run_of_{job}", predicted, key=key_of(stack, "tagger"))
    forger.replay("job", job, -1)


def step_of(job: Job) -> int:
    progress = None if job.live is None else job.live.progress
    return progress.step if isinstance(progress, TrainingProgress) else 0


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
