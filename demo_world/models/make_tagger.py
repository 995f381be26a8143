"""Trains the demo world's tagger: renders its pictures, trains a small network, exports it with WD's interface.

`python -m demo_world.models.make_tagger FOLDER --work DIR [--minutes 6] [--seed 0]`. Running it again with
the same DIR resumes. Progress is logged to DIR/tagger-log.jsonl. Needs the extra `demo-models`.
"""

import argparse
import time
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from demo_world.drawing import SIDE, draw_scene
from demo_world.models import picture_cache
from demo_world.models.onnx_export import export_onnx
from demo_world.models.tagger_files import write_tags_and_manifest
from demo_world.models.tagger_network import (
    DEFAULT_THRESHOLD,
    RATINGS,
    TaggerStage,
    TagVocabulary,
    best_threshold,
    calibrate,
    micro_f1,
    predict_probabilities,
)
from demo_world.models.training_loop import Clock, Log, StageTrainer
from demo_world.scenes import Scene
from demo_world.withheld import evaluation_scene, tagging_scene

_PICTURES_PER_MINUTE, _MAX_PICTURES = 4000, 40_000
"""Pictures rendered per minute of training, and their maximum number."""

_EVALUATION_PICTURES = 1000
"""Size of the validation set, on which the threshold is chosen, and of the held-out set, on which F1 is measured: per
minute of training, and at most."""


def make_tagger(folder: Path, work: Path, *, minutes: float, seed: int = 0, clock: Clock = time.monotonic) -> None:
    """Train the tagger for `minutes` by the clock and write its model folder."""
    log, device = Log(work / "tagger-log.jsonl"), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)  # for the initial weights
    vocabulary, evaluated = TagVocabulary(), min(_EVALUATION_PICTURES, round(minutes * _EVALUATION_PICTURES))
    count = min(_MAX_PICTURES, round(minutes * _PICTURES_PER_MINUTE))
    scenes = [tagging_scene(seed, index) for index in range(count)]
    pictures = picture_cache.tagging_pictures(work, seed=seed, count=count)
    stage = TaggerStage(pictures, vocabulary.targets(scenes), device)
    log.write("rendered", pictures=count)
    StageTrainer(work, seed, log, clock).train(stage, seconds=60 * minutes)
    validation, validation_targets = _evaluation_set("validation", evaluated, vocabulary)
    held_out, held_out_targets = _evaluation_set("held-out", evaluated, vocabulary)
    threshold = best_threshold(predict_probabilities(stage.module, validation, device), validation_targets)
    calibrate(stage.module, threshold)
    score = micro_f1(predict_probabilities(stage.module, held_out, device), held_out_targets, DEFAULT_THRESHOLD)
    folder.mkdir(parents=True, exist_ok=True)
    export_onnx(stage.module, folder / "model.onnx")
    # WD writes tags with underscores, and ratings as category 9.
    labels = [(name.replace(" ", "_"), 9 if name in RATINGS else 0) for name in vocabulary.names]
    write_tags_and_manifest(folder, "demo", labels, side=SIDE)
    log.write("saved", threshold=threshold, micro_f1=score, bytes=(folder / "model.onnx").stat().st_size)


def evaluation_pictures(name: str, count: int) -> list[tuple[Scene, Image.Image]]:
    """Scenes with seeds that no training uses, and their pictures in several sizes."""
    scenes = [evaluation_scene(name, index) for index in range(count)]
    sizes = Random(f"loratory/{name}")
    return [
        (scene, draw_scene(scene, f"{name}/{index}", sizes.choice(picture_cache.PICTURE_SIZES)))
        for index, scene in enumerate(scenes)
    ]


def _evaluation_set(name: str, count: int, vocabulary: TagVocabulary) -> tuple[Tensor, Tensor]:
    """Preprocessed pictures and their targets."""
    examples = evaluation_pictures(name, count)
    pictures = np.stack([np.asarray(picture_cache.wd_preprocess(picture)) for _, picture in examples])
    targets = vocabulary.targets([scene for scene, _ in examples])
    return torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()), targets


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo_world.models.make_tagger", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures, checkpoints and the log")
    parser.add_argument("--minutes", type=float, default=6.0, help="of training")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    make_tagger(args.folder, args.work, minutes=args.minutes, seed=args.seed)


if __name__ == "__main__":
    main()
