"""Tags pictures: returns, for each, its predictions or the reason why it is unreadable."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from contracts.events.tagging import Prediction
from contracts.thread_cancellation import ThreadCancellation
from tagger.wd.arrays import to_array
from tagger.wd.decoder_messages import Square, Unreadable
from tagger.wd.model import CPU, ForwardPass, OnnxTagger


class Predicted(msgspec.Struct, frozen=True):
    """Predictions for one picture; may be empty when no tag is above the floor."""

    predictions: tuple[Prediction, ...]


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

    @property
    def size(self) -> int:
        """Of the squares that the model reads, in pixels."""
        return self._model.size

    def tag(
        self, squares: Sequence[Square | Unreadable], cancellation: ThreadCancellation | None = None
    ) -> list[Predicted | Unreadable]:
        """Return one result per picture, in order. An unreadable one does not affect the others.

        It can be cancelled also in the middle of a forward pass.
        """
        run = ForwardPass()
        cancellation = cancellation or ThreadCancellation()
        cancellation.on_cancel(run.terminate)
        batches = cancellation.checked(
            squares[start : start + self._batch] for start in range(0, len(squares), self._batch)
        )
        return [result for batch in batches for result in self._tag_batch(batch, run)]

    def _tag_batch(self, batch: Sequence[Square | Unreadable], run: ForwardPass) -> list[Predicted | Unreadable]:
        pictures = [to_array(each, self._model.manifest) for each in batch if isinstance(each, Square)]
        predictions = iter(self._model.predict(pictures, run))
        return [each if isinstance(each, Unreadable) else Predicted(next(predictions)) for each in batch]
