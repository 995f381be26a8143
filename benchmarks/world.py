"""Evaluates the demo world's models: `python -m benchmarks.world [--base FOLDER] [--tagger FOLDER] [--few]`.

Prints one line of JSON per figure: the base on the committed lists of prompts and of withheld combinations, the tagger
on pictures with seeds that no training uses, LoRAs for five concepts with three seeds each (twelve images each), and
the seconds per picture. All seeds of the lists are used. `--few`: a tenth of each list. `--sheet`: save the pictures.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from diffusers import StableDiffusionPipeline
from PIL import Image

from contracts.shipped_models import shipped_models
from demo_world import withheld
from demo_world.concepts import CONCEPTS
from demo_world.models.evaluate import evaluate, picture_grid, render_prompts
from demo_world.scoring import ConceptClassifier, SceneClassifier
from tagger.wd.model import OnnxTagger
from tests.demo_world import trials
from trainer.engine.training import BaseCache

GENERAL_PROMPTS = 40
"""Prompts without a trigger, whose score a LoRA should not lower."""


def print_figure(figure: str, **values: object) -> None:
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}
    print(json.dumps({"figure": figure, **rounded}), flush=True)


def evaluate_prompts(pipeline: StableDiffusionPipeline, classifier: SceneClassifier, few: int) -> list[Image.Image]:
    """Evaluate the base on both lists; returns the pictures."""
    all_pictures = []
    for name in ("evaluation", "combinations"):
        rates, pictures = evaluate(pipeline, classifier, name, len(withheld.read_prompts(name)) // few)
        print_figure(name, **rates)
        all_pictures += pictures
    return all_pictures


def measure_speed(pipeline: StableDiffusionPipeline) -> None:
    """Seconds per picture with batch size 1 (median of five)."""
    seconds = []
    for seed in range(5):
        started = time.monotonic()
        render_prompts(pipeline, [withheld.read_prompts("evaluation")[seed].prompt], [seed])
        seconds.append(time.monotonic() - started)
    print_figure("one picture", seconds=statistics.median(seconds))


def evaluate_tagger(folder: Path, few: int) -> None:
    model, count = OnnxTagger.load(folder), 1000 // few
    threshold = model.manifest.thresholds["general"]
    print_figure("tagger", pictures=count, threshold=threshold, micro_f1=trials.tagging_f1(model, count))


def evaluate_concepts(
    pipeline: StableDiffusionPipeline, base: Path, classifier: SceneClassifier, few: int
) -> list[Image.Image]:
    """Train a LoRA per concept and seed: recognition rate without and with it, and its effect on other prompts.

    Returns the pictures.
    """
    evaluation = withheld.read_prompts("evaluation")
    general = evaluation[:: len(evaluation) // GENERAL_PROMPTS]
    seeds = [prompt.seed for prompt in general]
    texts = [prompt.prompt for prompt in general]
    score_before = trials.prompt_score(render_prompts(pipeline, texts, seeds), general, classifier)
    bases, all_pictures, rows = BaseCache(), [], []
    for trial in withheld.read_trials()[::few]:
        concept_classifier = ConceptClassifier(CONCEPTS[trial.concept])
        numbers = range(len(trial.prompts))
        without_lora = render_prompts(pipeline, trial.prompts, numbers)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            examples = trials.write_examples(trial.concept, trial.seed, folder / "pictures")
            lora = trials.train_lora(bases, base, examples, folder, trials.trial_recipe(trial.seed))
            pipeline.load_lora_weights(lora.file)
        try:
            with_lora = render_prompts(pipeline, trial.prompts, numbers)
            score_after = trials.prompt_score(render_prompts(pipeline, texts, seeds), general, classifier)
        finally:
            pipeline.unload_lora_weights()
        row = {
            "recognised_without_lora": trials.recognition_rate(without_lora, concept_classifier),
            "recognised_with_lora": trials.recognition_rate(with_lora, concept_classifier),
            "relative_score_of_other_prompts": score_after / score_before if score_before else 0.0,
            "seconds": lora.seconds,
        }
        print_figure("concept", concept=trial.concept, seed=trial.seed, **row)
        rows.append(row)
        all_pictures += with_lora[:10]
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    print_figure("concepts", trials=len(rows), **means)
    return all_pictures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.world", description=__doc__)
    parser.add_argument("--base", type=Path, default=shipped_models("bases")["demo"])
    parser.add_argument("--tagger", type=Path, default=shipped_models("taggers")["demo"])
    parser.add_argument("--few", action="store_true", help="a tenth of each list")
    parser.add_argument("--sheet", type=Path, help="write the pictures to this PNG")
    args = parser.parse_args()
    few = 10 if args.few else 1
    pipeline, classifier = trials.load_pipeline(args.base), SceneClassifier()
    measure_speed(pipeline)
    evaluate_tagger(args.tagger, few)
    pictures = evaluate_prompts(pipeline, classifier, few)
    pictures += evaluate_concepts(pipeline, args.base, classifier, few)
    if args.sheet:
        picture_grid(pictures).save(args.sheet)


if __name__ == "__main__":
    main()
