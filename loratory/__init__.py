"""User interfaces: `from loratory import Client` is the Python client, `loratory --help` the command line."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loratory.client import AsyncClient
    from loratory.sync import Client

__all__ = ["AsyncClient", "Client"]

_MODULES = {"AsyncClient": "loratory.client", "Client": "loratory.sync"}


def __getattr__(name: str) -> object:
    """Lazy imports: `loratory --help` needs no HTTP client."""
    if name not in _MODULES:
        raise AttributeError(f"module 'loratory' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
