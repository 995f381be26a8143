"""Fixtures shared by the acceptance tests: a stack with a finished job, a stack without workers, the photographs."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from demo_world import pictures as demo_pictures
from tests.acceptance.local_stack import LocalStack

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The folder of the photographs: beside the checkout, or in LORATORY_SHARED."""
    shared = Path(os.environ.get("LORATORY_SHARED") or ROOT.parent / "shared")
    folder = shared / "data" / "dreambooth"
    if not folder.is_dir():
        pytest.skip("shared data: there are no photographs beside the checkout (LORATORY_SHARED names the folder)")
    return folder


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """All services, running."""
    yield from _running(LocalStack(tmp_path_factory.mktemp("stack") / "data"))


@pytest.fixture(scope="session")
def stack_without_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """Without tagger and trainer: jobs and tagging runs stay queued."""
    yield from _running(LocalStack(tmp_path_factory.mktemp("without-workers") / "data", workers=False))


def _running(stack: LocalStack) -> Iterator[LocalStack]:
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six demo pictures with captions, a seventh without, a duplicate of it, and a text file named like a picture."""
    folder = tmp_path_factory.mktemp("basket")
    demo_pictures.write_pictures(folder, count=6, seed=3, trigger="momo")
    Image.effect_noise((80, 64), 90).convert("RGB").save(folder / "noise.png")
    (folder / "twice.png").write_bytes((folder / "noise.png").read_bytes())
    (folder / "text.png").write_text("this is no picture")
    return folder


@dataclass(frozen=True)
class Finished:
    """The data set and the job of one complete run."""

    dataset: str
    job: str


@pytest.fixture(scope="session")
def finished(stack: LocalStack, picture_folder: Path) -> Finished:
    """A data set with tags, captions, thresholds and a version, and a LoRA trained on it."""
    with stack.client() as client, stack.http() as http:
        client.create_dataset("basket")
        client.import_folder("basket", picture_folder)
        client.wait_tagging(client.tag("basket", "demo").id, timeout=120)
        image = client.images("basket")[0].id
        changes = [
            http.put(f"/api/v1/images/{image}/caption", json={"caption": "momo on a hill"}),
            http.patch(f"/api/v1/images/{image}/tags", json={"add": ["momo"], "remove": ["bright"]}),
            http.put("/api/v1/datasets/basket/thresholds", json={"general": 0.3, "character": 0.8}),
            http.post("/api/v1/datasets/basket/versions", json={"trigger": "momo"}),
            http.put("/api/v1/presets/ours", json={"parent": "tiny-random-demo", "changes": {"adapter.rank": 4}}),
            http.post("/api/v1/jobs", json={"dataset": "basket", "preset": "ours", "name": "a draft"}),
        ]
        assert all(response.is_success for response in changes), [response.text for response in changes]
        short = {"data.resolution": 64, "save.every": 4, "sampling.every": 8, "sampling.steps": 2}
        job = client.train("basket", preset="ours", trigger="momo", changes={**short, "length.count": 8})
        assert client.wait_job(job.id, timeout=300).status == "completed"
    return Finished("basket", job.id)
