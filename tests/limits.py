"""How long a test waits for something that must happen before it gives up: a bound on hanging, no claim about speed."""

WAIT = 120.0
"""Seconds. The slowest machine takes about three times as long as a quiet one, and may be busy with other work."""
