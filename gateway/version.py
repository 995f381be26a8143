"""Which Loratory this is."""

from importlib.metadata import version

VERSION = version("loratory")
