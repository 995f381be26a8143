"""Trains the demo world's tagger: renders its pictures, trains a small network, exports it with WD's interface.

`python -m trainer.demo.make_tagger FOLDER --work DIR [--minutes 6] [--seed 0]`. Running it again with
the same DIR resumes. Progress is logged to DIR/tagger-log.jsonl. Needs the extra `demo-models`.
"""

import argparse
import json
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.demo import picture_cache
from trainer.demo.onnx_export import export_onnx
from trainer.demo.tagger_network import (
    DEFAULT_THRESHOLD,
    RATINGS,
    TaggerStage,
    TagVocabulary,
    best_threshold,
    calibrate,
    micro_f1,
    predict_probabilities,
)
from trainer.demo.training_loop import Log, train_stage
from trainer.demo.world.drawing import SIDE, draw_scene
from trainer.demo.world.scenes import Scene
from trainer.demo.world.withheld import evaluation_scene, tagging_scene

_PICTURES_PER_MINUTE, _MAX_PICTURES = 4000, 40_000
"""Pictures rendered per minute of training, and their maximum number."""

_EVALUATION_PICTURES = 1000
"""Size of the validation set, on which the threshold is chosen, and of the held-out set, on which F1 is measured."""


def make_tagger(folder: Path, work: Path, *, minutes: float, seed: int = 0) -> None:
    """Train the tagger for about `minutes` minutes and write its model folder."""
    log, device = Log(work / "tagger-log.jsonl"), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)  # for the initial weights
    count, vocabulary = min(_MAX_PICTURES, round(minutes * _PICTURES_PER_MINUTE)), TagVocabulary()
    scenes = [tagging_scene(seed, index) for index in range(count)]
    pictures = picture_cache.tagging_pictures(work, seed=seed, count=count)
    stage = TaggerStage(pictures, vocabulary.targets(scenes), device)
    log.write("rendered", pictures=count)
    train_stage(stage, work, seconds=60 * minutes, seed=seed, log=log)
    validation, validation_targets = _evaluation_set("validation", vocabulary)
    held_out, held_out_targets = _evaluation_set("held-out", vocabulary)
    threshold = best_threshold(predict_probabilities(stage.module, validation, device), validation_targets)
    calibrate(stage.module, threshold)
    score = micro_f1(predict_probabilities(stage.module, held_out, device), held_out_targets, DEFAULT_THRESHOLD)
    folder.mkdir(parents=True, exist_ok=True)
    export_onnx(stage.module, folder / "model.onnx")
    _write_tags_and_manifest(folder, vocabulary)
    log.write("saved", threshold=threshold, micro_f1=score, bytes=(folder / "model.onnx").stat().st_size)


def evaluation_pictures(name: str, count: int = _EVALUATION_PICTURES) -> list[tuple[Scene, Image.Image]]:
    """Scenes with seeds that no training uses, and their pictures in several sizes."""
    scenes = [evaluation_scene(name, index) for index in range(count)]
    sizes = Random(f"loratory/{name}")
    return [
        (scene, draw_scene(scene, f"{name}/{index}", sizes.choice(picture_cache.PICTURE_SIZES)))
        for index, scene in enumerate(scenes)
    ]


def _evaluation_set(name: str, vocabulary: TagVocabulary) -> tuple[Tensor, Tensor]:
    """Preprocessed pictures and their targets."""
    examples = evaluation_pictures(name)
    pictures = np.stack([np.asarray(picture_cache.wd_preprocess(picture)) for _, picture in examples])
    targets = vocabulary.targets([scene for scene, _ in examples])
    return torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()), targets


def _write_tags_and_manifest(folder: Path, vocabulary: TagVocabulary) -> None:
    """Write the files that `tagger.wd` reads beside the model: the tag list and the manifest."""
    names = [name.replace(" ", "_") for name in vocabulary.names]
    lines = [f"{index},{name},{9 if name in RATINGS else 0},0" for index, name in enumerate(names)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *lines]) + "\n")
    manifest = {
        "name": "demo",
        "input": "input",
        "output": "output",
        "size": SIDE,
        "thresholds": {"general": DEFAULT_THRESHOLD, "character": 0.85},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainer.demo.make_tagger", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures, checkpoints and the log")
    parser.add_argument("--minutes", type=float, default=6.0, help="of training")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    make_tagger(args.folder, args.work, minutes=args.minutes, seed=args.seed)


if __name__ == "__main__":
    main()
