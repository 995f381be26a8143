"""Tags picture files: returns, for each file, its predictions or the reason why it is unreadable."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from contracts.errors import LoratoryError
from contracts.events.tagging import Prediction
from contracts.thread_cancellation import ThreadCancellation
from tagger.wd.model import CPU, ForwardPass, OnnxTagger
from tagger.wd.preprocess import Pixels, read_square, to_array


class Predicted(msgspec.Struct, frozen=True):
    """Predictions for one picture; may be empty when no tag is above the floor."""

    predictions: tuple[Prediction, ...]


class Unreadable(msgspec.Struct, frozen=True):
    """A picture that could not be read; `reason` is a sentence that does not contain its path."""

    reason: str


class Tagger:
    """A model loaded from its folder. SetupError: it cannot be loaded, and why."""

    def __init__(self, folder: Path, *, providers: Sequence[str] = (CPU,), threads: int = 0, batch: int = 1) -> None:
        """`batch`: pictures per forward pass, and the maximum held in memory.

        On a CPU, 1 costs nothing, and only then is a prediction independent of the other pictures in its batch: other
        batch sizes sum in another order, which changes the fourth digit.
        """
        self._model = OnnxTagger.load(folder, providers=providers, threads=threads)
        self._batch = max(1, batch)
        self.identity = self._model.identity
        self.thresholds = self._model.manifest.thresholds

    def tag(
        self, paths: Sequence[Path], cancellation: ThreadCancellation | None = None
    ) -> list[Predicted | Unreadable]:
        """Return one result per file, in order. An unreadable file does not affect the others.

        It can be cancelled also in the middle of a forward pass.
        """
        run = ForwardPass()
        cancellation = cancellation or ThreadCancellation()
        cancellation.on_cancel(run.terminate)
        batches = cancellation.checked(
            paths[start : start + self._batch] for start in range(0, len(paths), self._batch)
        )
        return [result for batch in batches for result in self._tag_batch(batch, run)]

    def _tag_batch(self, paths: Sequence[Path], run: ForwardPass) -> list[Predicted | Unreadable]:
        inputs = [self._read_pixels(path) for path in paths]
        pictures = [each for each in inputs if not isinstance(each, Unreadable)]
        predictions = iter(self._model.predict(pictures, run))
        return [each if isinstance(each, Unreadable) else Predicted(next(predictions)) for each in inputs]

    def _read_pixels(self, path: Path) -> "Pixels | Unreadable":
        try:
            return to_array(read_square(path, self._model.size), self._model.manifest)
        except LoratoryError as error:
            return Unreadable(error.detail)
        except Exception as error:  # noqa: BLE001 - Pillow raises nearly any exception on broken files; the other files must still be tagged
            return Unreadable(f"the picture cannot be read ({type(error).__name__})")
