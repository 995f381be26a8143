"""The installed version of Loratory."""

from importlib.metadata import version

VERSION = version("loratory")
