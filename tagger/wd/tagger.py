"""What the worker drives: picture files in, predictions or a reason out, one for each file."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from contracts.errors import LoratoryError
from contracts.events import Prediction
from tagger.wd.model import CPU, Model
from tagger.wd.preprocess import Pixels, read, to_array


class Predicted(msgspec.Struct, frozen=True):
    """What the model sees in one picture; no tag above the floor is an answer too."""

    predictions: tuple[Prediction, ...]


class Unreadable(msgspec.Struct, frozen=True):
    """Why a picture could not be read, in a sentence without its path."""

    reason: str


class Tagger:
    """A model on its folder. Loading raises SetupError with what is wrong."""

    def __init__(self, folder: Path, *, providers: Sequence[str] = (CPU,), threads: int = 0, batch: int = 1) -> None:
        """`batch` pictures go through the model at once, and no more are held in memory.

        On a CPU 1 costs nothing, and only then does no answer depend on its company: sums of another batch size are
        ordered otherwise, which moves the fourth digit.
        """
        self._model = Model.load(folder, providers=providers, threads=threads)
        self._batch = max(1, batch)
        self.identity = self._model.identity
        self.thresholds = self._model.manifest.thresholds

    def tag(self, paths: Sequence[Path]) -> list[Predicted | Unreadable]:
        """One answer for each file, in order. A file that cannot be read never stops the others."""
        groups = (paths[at : at + self._batch] for at in range(0, len(paths), self._batch))
        return [answer for group in groups for answer in self._tag(group)]

    def _tag(self, paths: Sequence[Path]) -> list[Predicted | Unreadable]:
        read_ones = [self._read(path) for path in paths]
        pictures = [each for each in read_ones if not isinstance(each, Unreadable)]
        answers = iter(self._model.predict(pictures))
        return [each if isinstance(each, Unreadable) else Predicted(next(answers)) for each in read_ones]

    def _read(self, path: Path) -> "Pixels | Unreadable":
        try:
            return to_array(read(path, self._model.size), self._model.manifest)
        except LoratoryError as error:
            return Unreadable(error.detail)
        except Exception as error:  # noqa: BLE001 - Pillow raises nearly anything on broken files; the rest must go on
            return Unreadable(f"the picture cannot be read ({type(error).__name__})")
