"""The built-in tagger: it has learnt the words of the demo world, by `python -m trainer.demo.make_tagger`."""

from pathlib import Path

DEMO = Path(__file__).parent
