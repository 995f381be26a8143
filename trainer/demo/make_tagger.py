"""Makes the demo world's tagger: draws its pictures, trains a small network on them, writes it as WD's taggers are.

`python -m trainer.demo.make_tagger FOLDER --work DIR [--minutes 6] [--seed 0]`. Stopped and started again with the same
DIR, it goes on where it was. What happens is told in DIR/log.jsonl. Needs the extra `demo-models`.
"""

import argparse
import json
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.demo import album
from trainer.demo.course import Log, follow
from trainer.demo.onnx_file import write_onnx
from trainer.demo.tagging import RATINGS, USUAL, Tagging, Words, best_threshold, calibrate, micro_f1, probabilities
from trainer.demo.world.drawing import SIDE, draw
from trainer.demo.world.scenes import Scene
from trainer.demo.world.withheld import judging_scene, tagging_scene

_PICTURES, _MOST = 4000, 40_000
"""Drawn for each minute of training, and at most."""

_JUDGED = 1000
"""Pictures the threshold is chosen on; the figure is measured on as many others."""


def make_tagger(folder: Path, work: Path, *, minutes: float, seed: int = 0) -> None:
    """Make the tagger within about so many minutes of training."""
    log, device = Log(work / "tagger-log.jsonl"), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)  # of the first weights
    count, words = min(_MOST, round(minutes * _PICTURES)), Words()
    scenes = [tagging_scene(seed, index) for index in range(count)]
    course = Tagging(album.tagged(work, seed=seed, count=count), words.targets(scenes), device)
    log.tell("drawn", pictures=count)
    follow(course, work, seconds=60 * minutes, seed=seed, log=log)
    (pictures, targets), (others, wanted) = (_judged(name, words) for name in ("validation", "held-out"))
    threshold = best_threshold(probabilities(course.module, pictures, device), targets)
    calibrate(course.module, threshold)
    figure = micro_f1(probabilities(course.module, others, device), wanted, USUAL)
    folder.mkdir(parents=True, exist_ok=True)
    write_onnx(course.module, folder / "model.onnx")
    _write_words(folder, words)
    log.tell("saved", threshold=threshold, micro_f1=figure, bytes=(folder / "model.onnx").stat().st_size)


def judged_scenes(name: str, count: int = _JUDGED) -> list[tuple[Scene, Image.Image]]:
    """Scenes of seeds that nothing is trained on, and their pictures in several aspects."""
    scenes = [judging_scene(name, index) for index in range(count)]
    sizes = Random(f"loratory/{name}")
    return [(scene, draw(scene, f"{name}/{index}", sizes.choice(album.SIZES))) for index, scene in enumerate(scenes)]


def _judged(name: str, words: Words) -> tuple[Tensor, Tensor]:
    """Pictures as the network sees them, and what is to be said of them."""
    judged = judged_scenes(name)
    pictures = np.stack([np.asarray(album.as_seen(picture)) for _, picture in judged])
    return torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()), words.targets([scene for scene, _ in judged])


def _write_words(folder: Path, words: Words) -> None:
    """What `tagger.wd` reads beside the model: the tag list, and how pixels and outputs are meant."""
    names = [name.replace(" ", "_") for name in words.names]
    lines = [f"{place},{name},{9 if name in RATINGS else 0},0" for place, name in enumerate(names)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *lines]) + "\n")
    manifest = {
        "name": "demo",
        "input": "input",
        "output": "output",
        "size": SIDE,
        "thresholds": {"general": USUAL, "character": 0.85},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m trainer.demo.make_tagger", description=__doc__)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--work", type=Path, required=True, help="where pictures, checkpoints and the log are kept")
    asked.add_argument("--minutes", type=float, default=6.0, help="of training")
    asked.add_argument("--seed", type=int, default=0)
    said = asked.parse_args()
    make_tagger(said.folder, said.work, minutes=said.minutes, seed=said.seed)


if __name__ == "__main__":
    main()
