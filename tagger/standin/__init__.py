"""The built-in tagger: WD's interface, and a rule (colours, light, background) where WD has learnt. For demo and tests.

`python -m tagger.standin.make` makes its files again, byte for byte.
"""

from pathlib import Path

STAND_IN = Path(__file__).parent
