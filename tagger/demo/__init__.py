"""The built-in tagger, trained on the tags of the demo world by `python -m trainer.demo.make_tagger`."""

from pathlib import Path

DEMO = Path(__file__).parent
