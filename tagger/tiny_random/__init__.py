"""A tiny tagger for tests, with WD's interface: fixed rules (colours, brightness, background), nothing trained.

`python -m tagger.tiny_random.make` regenerates its files, byte for byte.
"""

from pathlib import Path

TINY_RANDOM = Path(__file__).parent
