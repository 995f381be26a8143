"""Makes the demo base: draws its pictures, trains autoencoder and denoiser on them, saves an SD-1.x pipeline folder.

`python -m trainer.demo.make_base FOLDER --work DIR [--minutes 65] [--seed 0]`. Stopped and started again with the same
DIR, it goes on where it was. What happens is told in DIR/log.jsonl.
"""

import argparse
from pathlib import Path

import torch

from trainer.demo import album, parts
from trainer.demo.autoencoding import Autoencoding, Polishing, encoded, normalise
from trainer.demo.course import Log, follow
from trainer.demo.denoising import Denoising

_PICTURES = 400
"""Drawn for each minute of training: 30,000 in 75."""

_SCRIBBLES = 0.2
"""How many scribbles there are for each picture."""

_LOOKING, _DRAWING, _POLISHING = 0.19, 0.77, 0.19
"""Minutes of training for each minute that is asked for: of the autoencoder, the denoiser, and of the decoder alone."""


def make_base(folder: Path, work: Path, *, minutes: float, seed: int = 0) -> None:
    """Make the base within about so many minutes of training."""
    log, device = Log(work / "log.jsonl"), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)  # of the first weights
    base = parts.untrained(work)
    count = round(minutes * _PICTURES)
    pictures = album.pictures(work, seed=seed, count=count)
    scribbles = album.scribbles(work, seed=seed, count=round(count * _SCRIBBLES))
    log.tell("drawn", pictures=len(pictures), scribbles=len(scribbles))
    looking = Autoencoding(base.vae, pictures, scribbles, device)
    follow(looking, work, seconds=60 * minutes * _LOOKING, seed=seed, log=log)
    normalise(base.vae, pictures[:4096], device)
    drawing = Denoising(
        base,
        latents=encoded(base.vae, pictures, device),
        scenes=album.scenes(seed, count),
        device=device,
    )
    follow(drawing, work, seconds=60 * minutes * _DRAWING, seed=seed, log=log)
    polishing = Polishing(base.vae, pictures, scribbles, device)
    follow(polishing, work, seconds=60 * minutes * _POLISHING, seed=seed, log=log)
    parts.save(base, folder)
    log.tell("saved", megabytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6)


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m trainer.demo.make_base", description=__doc__)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--work", type=Path, required=True, help="where pictures, checkpoints and the log are kept")
    asked.add_argument("--minutes", type=float, default=65.0, help="65 are 75 of training in all")
    asked.add_argument("--seed", type=int, default=0)
    said = asked.parse_args()
    make_base(said.folder, said.work, minutes=said.minutes, seed=said.seed)


if __name__ == "__main__":
    main()
