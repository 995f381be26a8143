"""How long a test waits for something that must happen before it gives up: a bound on hanging, no claim about speed."""

import hypothesis

WAIT = 120.0
"""Seconds. The slowest machine takes about three times as long as a quiet one, and may be busy with other work."""


def examples(count: int) -> int:
    """This number of examples of a property with `--all`, a quarter without; at least three."""
    return max(3, count * hypothesis.settings().max_examples // 100)
