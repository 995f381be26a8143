"""A tagger with WD's interface, and a rule (colours, light, background) where WD has learnt. For tests.

`python -m tagger.standin.make` makes its files again, byte for byte.
"""

from pathlib import Path

STAND_IN = Path(__file__).parent
