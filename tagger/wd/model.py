"""A loaded model: pictures as arrays in, predictions out. One session for a process, made once."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as faults

from contracts.errors import SetupError
from contracts.events import Prediction
from contracts.ids import Digest
from contracts.tags import FLOOR
from tagger.wd.manifest import Label, Manifest, read_labels, read_manifest
from tagger.wd.onnxfile import weight_files
from tagger.wd.preprocess import PREPROCESSING, Pixels

CPU = "CPUExecutionProvider"

_REFUSED = (
    *(faults.Fail, faults.InvalidArgument, faults.InvalidGraph, faults.InvalidProtobuf, faults.NoModel),
    *(faults.NoSuchFile, faults.NotFound, faults.NotImplemented, faults.RuntimeException, faults.EPFail),
)
_QUIET = 3  # errors only; onnxruntime writes its warnings to stderr, past our logs


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What made a prediction: sha256 of weights and tag list, how pixels were made, and where it truly ran.

    `model` is the sha256 of the .onnx file; where weights lie in files beside it, of all of them, one after another by
    name. `provider` is onnxruntime's, which may fall back to the CPU without a word: compare with `asked`.
    """

    name: str
    model: Digest
    tags: Digest
    preprocessing: str
    provider: str
    asked: str


class Model:
    """Use `Model.load`. `manifest` has `input`, `output` and `size` filled in."""

    def __init__(
        self, session: ort.InferenceSession, manifest: Manifest, labels: tuple[Label, ...], identity: Identity
    ) -> None:
        self.manifest = manifest
        self.labels = labels
        self.identity = identity
        self.size = manifest.size or 0
        self._session = session
        self._ratings = np.array([label.category == "rating" for label in labels])
        self._at_once = _fixed_batch(session, manifest)

    @classmethod
    def load(cls, folder: Path, *, providers: Sequence[str] = (CPU,), threads: int = 0) -> "Model":
        """Open the model in a folder and try it on a white picture; SetupError says what is wrong with it.

        `providers` are onnxruntime's names in order of wish; the CPU is always the last resort. `threads` on the CPU,
        0 = one for each core.
        """
        manifest = read_manifest(folder)
        labels = read_labels(folder, manifest)
        files = weight_files(folder / manifest.model)
        session = _session(folder / manifest.model, providers, threads)
        identity = Identity(
            name=manifest.name,
            model=_sha256(files),
            tags=_sha256([folder / manifest.tags]),
            preprocessing=PREPROCESSING,
            provider=session.get_providers()[0],
            asked=providers[0] if providers else CPU,
        )
        model = cls(session, _completed(manifest, session), labels, identity)
        model._try()
        return model

    def predict(self, pictures: Sequence[Pixels]) -> list[tuple[Prediction, ...]]:
        """For each picture its ratings, then every tag above `FLOOR`, each the most probable first; four digits."""
        step = self._at_once or max(1, len(pictures))
        batches = [pictures[at : at + step] for at in range(0, len(pictures), step)]
        return [self._read(row) for batch in batches for row in self._probabilities(np.stack(batch))]

    def _probabilities(self, batch: Pixels) -> NDArray[np.float64]:
        (scores,) = self._session.run([self.manifest.output], {self.manifest.input: batch})
        if scores.shape != (len(batch), len(self.labels)):
            raise SetupError(
                f"the model gives {scores.shape[-1]} values a picture, but its tag list has {len(self.labels)} rows"
            )
        if self.manifest.gives == "logits":
            scores = 1 / (1 + np.exp(-np.clip(scores.astype(np.float64), -60, 60)))
        if not (np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1 + 1e-3):
            raise SetupError("the model gives values that are no probabilities; does it give logits? (`gives`)")
        probabilities: NDArray[np.float64] = np.round(scores.astype(np.float64), 4)
        return probabilities.clip(max=1.0)

    def _read(self, row: NDArray[np.float64]) -> tuple[Prediction, ...]:
        kept = np.flatnonzero((row > FLOOR) | self._ratings)
        guesses = (
            Prediction(
                tag=self.labels[i].tag,
                probability=float(row[i]),
                category=self.labels[i].category,
            )
            for i in kept
        )
        return tuple(sorted(guesses, key=lambda guess: (guess.category != "rating", -guess.probability, guess.tag)))

    def _try(self) -> None:
        shape = (self.size, self.size, 3) if self.manifest.layout == "NHWC" else (3, self.size, self.size)
        try:
            self.predict([np.full(shape, 255, np.float32)])
        except _REFUSED as error:
            raise SetupError(f"the model {self.identity.name!r} does not run: {error}") from error


def _session(path: Path, providers: Sequence[str], threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    there = [name for name in providers if name in ort.get_available_providers() and name != CPU]
    try:
        return ort.InferenceSession(path, options, providers=[*there, CPU])
    except _REFUSED as error:
        raise SetupError(f"{path.name} is not a model that onnxruntime opens: {error}") from error


def _completed(manifest: Manifest, session: ort.InferenceSession) -> Manifest:
    """The manifest with names and size as the model file has them; SetupError where the two disagree."""
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = [node.name for node in session.get_outputs()]
    name, output = manifest.input or next(iter(inputs), ""), manifest.output or outputs[0]
    if name not in inputs or output not in outputs:
        raise SetupError(f"the model has inputs {sorted(inputs)} and outputs {outputs}, not {name!r} and {output!r}")
    if len(inputs) > 1:
        raise SetupError(f"the model wants {len(inputs)} inputs; a tagger has one")
    node = inputs[name]
    if len(node.shape) != 4 or node.type != "tensor(float)":
        raise SetupError(f"the model's input is {node.type} of shape {node.shape}; wanted: float, batch of pictures")
    *sides, channels = node.shape[1:] if manifest.layout == "NHWC" else (*node.shape[2:], node.shape[1])
    said = {side for side in sides if isinstance(side, int)} | ({manifest.size} if manifest.size else set())
    if len(said) != 1 or (isinstance(channels, int) and channels != 3):
        raise SetupError(
            f"the model's input {node.shape} is no {manifest.layout} square of three colours"
            + (f" of size {manifest.size}" if manifest.size else "; where the file names no size, the manifest must")
        )
    return msgspec.structs.replace(manifest, input=name, output=output, size=said.pop())


def _fixed_batch(session: ort.InferenceSession, manifest: Manifest) -> int | None:
    """1 where the file fixes the batch (WD v2), none where it is free."""
    batch = next(node.shape[0] for node in session.get_inputs() if node.name == manifest.input)
    if isinstance(batch, int) and batch != 1:
        raise SetupError(f"the model takes just {batch} pictures at once; a batch must be free, or 1")
    return batch if isinstance(batch, int) else None


def _sha256(files: Sequence[Path]) -> Digest:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return Digest(digest.hexdigest())
