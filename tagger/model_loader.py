"""Keeps the model of the last run loaded.

Loading cannot be interrupted: a run that is cancelled meanwhile leaves it to go on, and the next run waits for it.
"""

import asyncio
from dataclasses import dataclass

from contracts.errors import SetupError
from tagger import models
from tagger.settings import Settings
from tagger.wd.tagger import Tagger


@dataclass
class ModelLoader:
    """One model at a time: two may not fit into memory."""

    settings: Settings
    _name: str = ""
    _loading: "asyncio.Future[Tagger] | None" = None

    @property
    def is_loading(self) -> bool:
        return self._loading is not None and not self._loading.done()

    async def load(self, name: str) -> Tagger:
        """The model with this name. Rejected: it does not exist or cannot be used."""
        folder = models.model_folder(name, self.settings.models)
        if self._loading is not None and (self._name != name or _has_failed(self._loading)):
            await asyncio.wait({self._loading})
            self._loading = None  # freed before another one is loaded
        if self._loading is None:
            load = asyncio.to_thread(Tagger, folder, providers=self.settings.providers, threads=self.settings.threads)
            self._name, self._loading = name, asyncio.ensure_future(load)
        try:
            return await asyncio.shield(self._loading)
        except SetupError as error:
            raise models.unusable_model_error(name, error.detail) from error


def _has_failed(loading: "asyncio.Future[Tagger]") -> bool:
    return loading.done() and loading.exception() is not None
