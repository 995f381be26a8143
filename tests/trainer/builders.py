"""Builders for small, fast training requests; every field of the recipe can be changed."""

import hashlib
from pathlib import Path
from typing import TypeVar

from contracts.recipe import AdamW, BuiltinBase, Data, LoRA, Recipe, Sampling, Save, Steps, apply_changes
from demo_world import pictures
from trainer.engine.training import BaseCache, Training
from trainer.messages import AdapterMetadata, Example, Train, Update

SMALL = Recipe(
    base=BuiltinBase(name="tiny-random"),
    adapter=LoRA(rank=4, alpha=2.0),
    optimizer=AdamW(lr=1e-2),
    length=Steps(count=4),
    data=Data(resolution=64, bucket_step=32),
    sampling=Sampling(prompts=("momo",), steps=1, guidance=1.0),
    save=Save(every=100),
    device="cpu",
)
METADATA = AdapterMetadata(
    adapter_name="momo",
    job_id="job_1",
    dataset_name="creatures",
    dataset_version=3,
    base_name="tiny-random",
    trigger="momo",
    tag_frequency={1: {"momo": 5, "smiling": 2}},
)
UpdateType = TypeVar("UpdateType")


def draw_examples(folder: Path, count: int) -> list[Example]:
    paths = pictures.write_pictures(folder, count=count, seed=0, trigger="momo", sizes=pictures.ASPECTS)
    return [
        Example(
            path=str(path),
            digest=hashlib.sha256(path.read_bytes()).hexdigest(),
            caption=path.with_suffix(".txt").read_text().strip(),
            ordinal=ordinal,
        )
        for ordinal, path in enumerate(paths)
    ]


class Workbench:
    """Runs requests on one base, each in its own work folder."""

    def __init__(self, base: Path, bases: BaseCache, examples: list[Example], cache: Path, folder: Path) -> None:
        self.base, self.bases, self.examples, self.cache, self.folder = base, bases, examples, cache, folder
        self._runs = 0

    def request(self, resume_from: str | None = None, /, **changes: object) -> Train:
        """`changes` are recipe fields with `__` for the dot: `optimizer__lr=1e-3`."""
        self._runs += 1
        return Train(
            recipe=apply_changes(SMALL, {name.replace("__", "."): value for name, value in changes.items()}),
            base_folder=str(self.base),
            examples=self.examples,
            work_folder=str(self.folder / str(self._runs)),
            cache_folder=str(self.cache),
            draft_folder=str(self.folder / "drafts"),
            metadata=METADATA,
            resume_from=resume_from,
        )

    def run(self, request: Train) -> list[Update]:
        return list(Training(request, self.bases, {"torch": "x"}).updates())


def only(updates: list[Update], kind: type[UpdateType]) -> list[UpdateType]:
    return [update for update in updates if isinstance(update, kind)]


def last(updates: list[Update], kind: type[UpdateType]) -> UpdateType:
    return only(updates, kind)[-1]
