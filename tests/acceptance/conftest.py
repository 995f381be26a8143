"""What the acceptance tests share: one whole workshop with a finished run, one without workers, the photographs."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.acceptance.house import House
from trainer.demo import pictures as drawn

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The folder of the photographs: beside the checkout, or where LORATORY_SHARED says."""
    shared = Path(os.environ.get("LORATORY_SHARED") or ROOT.parent / "shared")
    folder = shared / "data" / "dreambooth"
    if not folder.is_dir():
        pytest.skip("shared data: there are no photographs beside the checkout (LORATORY_SHARED names the folder)")
    return folder


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """All of it, running."""
    yield from _running(House(tmp_path_factory.mktemp("house") / "data"))


@pytest.fixture(scope="session")
def quiet_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Without tagger and trainer: what is asked of them waits."""
    yield from _running(House(tmp_path_factory.mktemp("quiet") / "data", workers=False))


def _running(house: House) -> Iterator[House]:
    try:
        house.start()
        yield house
    finally:
        house.stop()


@pytest.fixture(scope="session")
def basket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six drawn pictures with captions, a seventh without, one of them twice, and a text that calls itself one."""
    folder = tmp_path_factory.mktemp("basket")
    drawn.write(folder, count=6, seed=3, trigger="momo")
    Image.effect_noise((80, 64), 90).convert("RGB").save(folder / "noise.png")
    (folder / "twice.png").write_bytes((folder / "noise.png").read_bytes())
    (folder / "text.png").write_text("this is no picture")
    return folder


@dataclass(frozen=True)
class Finished:
    """What one whole run left in the workshop."""

    dataset: str
    job: str


@pytest.fixture(scope="session")
def finished(house: House, basket: Path) -> Finished:
    """A data set with everything in it, and a LoRA made of it."""
    with house.client() as client, house.http() as http:
        client.create_dataset("basket")
        client.import_folder("basket", basket)
        client.wait_tagging(client.tag("basket").id, timeout=120)
        image = client.images("basket")[0].id
        changes = [
            http.put(f"/api/v1/images/{image}/caption", json={"caption": "momo on a hill"}),
            http.patch(f"/api/v1/images/{image}/tags", json={"add": ["momo"], "remove": ["bright"]}),
            http.put("/api/v1/datasets/basket/thresholds", json={"general": 0.3, "character": 0.8}),
            http.post("/api/v1/datasets/basket/versions", json={"trigger": "momo"}),
            http.put("/api/v1/presets/ours", json={"parent": "stand-in-demo", "changes": {"adapter.rank": 4}}),
            http.post("/api/v1/jobs", json={"dataset": "basket", "preset": "ours", "name": "a draft"}),
        ]
        assert all(answer.is_success for answer in changes), [answer.text for answer in changes]
        short = {"data.resolution": 64, "save.every": 4, "sampling.every": 8, "sampling.steps": 2}
        job = client.train("basket", preset="ours", trigger="momo", changes={**short, "length.count": 8})
        assert client.wait_job(job.id, timeout=300).status == "completed"
    return Finished("basket", job.id)
