"""What the models of the demo world can do: `python -m benchmarks.world [--base FOLDER] [--tagger FOLDER] [--few]`.

One line of JSON for each figure: the base by the committed lists of prompts and of withheld combinations, the tagger on
pictures of seeds that nothing was trained on, five concepts with three seeds each, taught by LoRAs of twelve pictures,
and the seconds of one picture. All seeds of the lists, none picked. `--few` takes a tenth of each list. `--sheet` keeps
what was drawn.
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

from tagger.wd.model import Model
from tests.trainer import trials
from trainer.bases import DEMO
from trainer.demo.figures import drawing, figures, sheet
from trainer.demo.world import withheld
from trainer.demo.world.concepts import CONCEPTS
from trainer.demo.world.scoring import Judge, Recogniser
from trainer.engine.training import Bases

TAGGER = Path(__file__).parents[1] / "tagger" / "demo"
KEPT = 40
"""Prompts without a trigger, of which a LoRA is to leave the answers as they were."""


def tell(figure: str, **facts: object) -> None:
    short = {name: round(fact, 4) if isinstance(fact, float) else fact for name, fact in facts.items()}
    print(json.dumps({"figure": figure, **short}), flush=True)


def of_prompts(pipeline: StableDiffusionPipeline, judge: Judge, few: int) -> list[Image.Image]:
    """The base by both lists."""
    shown = []
    for name in ("evaluation", "combinations"):
        found, drawn = figures(pipeline, judge, name, len(withheld.prompts(name)) // few)
        tell(name, **found)
        shown += drawn
    return shown


def of_speed(pipeline: StableDiffusionPipeline) -> None:
    """Seconds of one picture, alone."""
    seconds = []
    for seed in range(5):
        began = time.monotonic()
        drawing(pipeline, withheld.prompts("evaluation")[seed].prompt, seed)
        seconds.append(time.monotonic() - began)
    tell("one picture", seconds=statistics.median(seconds))


def of_tagger(folder: Path, few: int) -> None:
    model, count = Model.load(folder), 1000 // few
    threshold = model.manifest.thresholds["general"]
    tell("tagger", pictures=count, threshold=threshold, micro_f1=trials.tagging_f1(model, count))


def of_concepts(pipeline: StableDiffusionPipeline, base: Path, judge: Judge, few: int) -> list[Image.Image]:
    """Each concept and seed: recognised by the base and with the LoRA; prompts without its trigger."""
    asked = withheld.prompts("evaluation")[:: len(withheld.prompts("evaluation")) // KEPT]
    seeds = [prompt.seed for prompt in asked]
    texts = [prompt.prompt for prompt in asked]
    before = trials.score(trials.drawings(pipeline, texts, seeds), asked, judge)
    bases, shown, rows = Bases(), [], []
    for trial in withheld.trials()[::few]:
        recogniser = Recogniser(CONCEPTS[trial.concept])
        numbers = range(len(trial.prompts))
        without = trials.drawings(pipeline, trial.prompts, numbers)
        with tempfile.TemporaryDirectory() as place:
            pictures = trials.examples(trial.concept, trial.seed, Path(place) / "pictures")
            taught = trials.teach(bases, base, pictures, Path(place), trials.recipe(trial.seed))
            pipeline.load_lora_weights(taught.file)
        try:
            taught_it = trials.drawings(pipeline, trial.prompts, numbers)
            after = trials.score(trials.drawings(pipeline, texts, seeds), asked, judge)
        finally:
            pipeline.unload_lora_weights()
        row = {
            "base": trials.recognised(without, recogniser),
            "recognised": trials.recognised(taught_it, recogniser),
            "kept": after / before if before else 0.0,
            "seconds": taught.seconds,
        }
        tell("concept", concept=trial.concept, seed=trial.seed, **row)
        rows.append(row)
        shown += taught_it[:10]
    tell("concepts", trials=len(rows), **{name: float(np.mean([row[name] for row in rows])) for name in rows[0]})
    return shown


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m benchmarks.world", description=__doc__)
    asked.add_argument("--base", type=Path, default=DEMO)
    asked.add_argument("--tagger", type=Path, default=TAGGER)
    asked.add_argument("--few", action="store_true", help="a tenth of everything")
    asked.add_argument("--sheet", type=Path, help="a PNG of what was drawn")
    said = asked.parse_args()
    few = 10 if said.few else 1
    pipeline, judge = trials.pipeline_of(said.base), Judge()
    of_speed(pipeline)
    of_tagger(said.tagger, few)
    shown = of_prompts(pipeline, judge, few)
    shown += of_concepts(pipeline, said.base, judge, few)
    if said.sheet:
        sheet(shown).save(said.sheet)


if __name__ == "__main__":
    main()
