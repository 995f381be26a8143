"""How the command line shows jobs: a readable summary rather than a dump."""

from datetime import UTC, datetime
from typing import Any

from contracts.events.jobs import Artifact
from contracts.ids import DatasetId, Digest, JobId, VersionId, WorkerId
from contracts.queries.jobs import AttemptView
from contracts.recipe import Epochs, LoRA, Preservation, Recipe, Sampling
from contracts.wording import size_of
from loratory.cli.views import job_sections, recipe_fields
from loratory.responses import Job, LiveState, WaitReason

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ATTEMPT = AttemptView(
    attempt=9, worker=WorkerId("gpu1"), resumes=300, started_at=AT, ended="crashed", reason="out of memory"
)
ARTIFACT = Artifact(
    name="mika.safetensors", format="kohya", digest=Digest("0" * 64), size=12_345_678, tensors=Digest("1" * 64)
)


def job(**changes: Any) -> Job:
    fields: dict[str, Any] = {
        "id": JobId("job_1"),
        "name": "mika",
        "description": "",
        "labels": ("a", "b"),
        "mode": "single",
        "status": "running",
        "phase": "running",
        "priority": "normal",
        "preset": "sd15-lora",
        "dataset_id": DatasetId("d1"),
        "dataset": "mika",
        "version": 3,
        "version_id": VersionId("v3"),
        "images": 12,
        "captions_lost": 0,
        "trigger": "zwx",
        "recipe": Recipe(),
        "step": 300,
        "steps": 400,
        "device": "cuda",
        "precision": "bfloat16",
        "attempts": (ATTEMPT,),
        "artifacts": (ARTIFACT,),
        "checkpoints": 3,
        "samples": 0,
        "position": None,
        "error_code": None,
        "error": None,
        "actor": "user:local",
        "created_at": AT,
        "started_at": AT,
        "ended_at": None,
        "etag": 8,
    }
    return Job(**fields | changes)


def test_a_job_is_grouped_into_sections() -> None:
    sections = job_sections(job())
    assert list(sections) == ["Job job_1", "Progress", "Attempts", "Recipe", "Files"]
    summary, progress = sections["Job job_1"], sections["Progress"]
    assert (summary["Status"], summary["Trigger"]) == ("running", "zwx")
    assert summary["Data set"] == "mika, version 3 (12 images)"
    lossy = job_sections(job(captions_lost=2))["Job job_1"]
    assert lossy["Data set"] == "mika, version 3 (12 images, 2 without a lost caption)"
    assert (progress["Step"], progress["Device"]) == ("300 of 400", "cuda, bfloat16")
    assert sections["Attempts"] == {
        "1": "worker gpu1, started 2026-11-21 12:00:00 UTC, resumed after step 300, crashed: out of memory"
    }
    assert sections["Files"] == {"mika.safetensors": f"kohya, 12.3 MB, sha256 {'0' * 64}"}


def test_a_waiting_and_a_failed_job_say_why() -> None:
    waiting = LiveState(waiting=WaitReason(why="no trainer connected since noon", code="no-worker"))
    summary = job_sections(job(status="pending", phase="queued", live=waiting))["Job job_1"]
    assert (summary["Status"], summary["Waiting"]) == ("pending (queued)", "no trainer connected since noon")
    failed = job_sections(job(status="failed", phase="failed", error_code="no-base", error="no such base"))
    assert failed["Job job_1"]["Error"] == "no such base (no-base)"


def test_a_recipe_is_shown_by_its_important_fields_and_what_differs_from_the_defaults() -> None:
    fields = recipe_fields(
        Recipe(
            adapter=LoRA(rank=16, dropout=0.1),
            length=Epochs(count=5),
            sampling=Sampling(prompts=("a cat", "a dog")),
            preservation=Preservation(),
            precision="float16",
            seed=7,
        )
    )
    assert fields == {
        "Base": "builtin, name demo",
        "Adapter": "lora, rank 16, alpha 8, dropout 0.1",
        "Length": "5 epochs",
        "Optimizer": "adamw, lr 0.0001",
        "Schedule": "constant",
        "Data": "resolution 512, batch size 1",
        "Objective": "denoising",
        "Preservation": "default",
        "Samples": "prompts 2",
        "Checkpoints": "every 100",
        "Other": "precision float16",
        "Seed": 7,
    }


def test_sizes_have_three_digits_and_decimal_units() -> None:
    assert [size_of(size) for size in (7, 999, 1000, 12_345_678, 2 * 10**12)] == [
        "7 bytes",
        "999 bytes",
        "1 kB",
        "12.3 MB",
        "2 TB",
    ]
