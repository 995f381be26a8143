"""Trains the demo base: renders its pictures, trains autoencoder and denoiser, saves an SD-1.x pipeline folder.

`python -m demo_world.models.make_base FOLDER --work DIR [--minutes 65] [--seed 0]`. Running it again with the
same DIR resumes. Progress is logged to DIR/log.jsonl.
"""

import argparse
import time
from pathlib import Path

import torch

from demo_world.models import base_pipeline, picture_cache
from demo_world.models.autoencoder_training import AutoencoderStage, DecoderStage, encode_means, normalise_latents
from demo_world.models.denoiser_training import DenoiserStage
from demo_world.models.training_loop import Clock, Log, StageTrainer

_PICTURES_PER_MINUTE = 400
"""Pictures rendered per minute of training."""

_SCRIBBLES_PER_PICTURE = 0.2

_AUTOENCODER_SHARE, _DENOISER_SHARE, _DECODER_SHARE = 0.19, 0.77, 0.19
"""Training time of each stage, per minute of `minutes`. They add up to more than 1."""


def make_base(folder: Path, work: Path, *, minutes: float, seed: int = 0, clock: Clock = time.monotonic) -> None:
    """Train the base; training takes about 1.15 times `minutes` by the clock."""
    log, device = Log(work / "log.jsonl"), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = StageTrainer(work, seed, log, clock)
    torch.manual_seed(seed)  # for the initial weights
    base = base_pipeline.build_untrained(work)
    count = round(minutes * _PICTURES_PER_MINUTE)
    pictures = picture_cache.training_pictures(work, seed=seed, count=count)
    scribbles = picture_cache.scribbles(work, seed=seed, count=round(count * _SCRIBBLES_PER_PICTURE))
    log.write("rendered", pictures=len(pictures), scribbles=len(scribbles))
    autoencoder = AutoencoderStage(base.vae, pictures, scribbles, device)
    trainer.train(autoencoder, seconds=60 * minutes * _AUTOENCODER_SHARE)
    normalise_latents(base.vae, pictures[:4096], device)
    denoiser = DenoiserStage(
        base,
        latents=encode_means(base.vae, pictures, device),
        scenes=picture_cache.training_scenes(seed, count),
        device=device,
    )
    trainer.train(denoiser, seconds=60 * minutes * _DENOISER_SHARE)
    decoder = DecoderStage(base.vae, pictures, scribbles, device)
    trainer.train(decoder, seconds=60 * minutes * _DECODER_SHARE)
    base_pipeline.save_pipeline(base, folder)
    log.write("saved", megabytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo_world.models.make_base", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures, checkpoints and the log")
    parser.add_argument("--minutes", type=float, default=65.0, help="65 means 75 minutes of training in total")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    make_base(args.folder, args.work, minutes=args.minutes, seed=args.seed)


if __name__ == "__main__":
    main()
