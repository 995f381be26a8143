"""A loaded model: pixel arrays in, predictions out. One onnxruntime session per process, created once."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as faults

from contracts.errors import SetupError
from contracts.events.tagging import Prediction
from contracts.ids import Digest
from contracts.tags import STORED_FLOOR
from tagger.wd.arrays import Pixels
from tagger.wd.manifest import Label, Manifest, read_labels, read_manifest
from tagger.wd.onnxfile import weight_files
from tagger.wd.preprocess import PREPROCESSING

CPU = "CPUExecutionProvider"

_ONNX_ERRORS = (
    *(faults.Fail, faults.InvalidArgument, faults.InvalidGraph, faults.InvalidProtobuf, faults.NoModel),
    *(faults.NoSuchFile, faults.NotFound, faults.NotImplemented, faults.RuntimeException, faults.EPFail),
)
_LOG_ERRORS_ONLY = 3  # onnxruntime writes warnings straight to stderr, bypassing our logs


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Provenance of a prediction: sha256 of weights and tag list, preprocessing version, and execution provider.

    `model` is the sha256 of the .onnx file; with external weight files, of all files concatenated in order of name.
    `provider` is the one onnxruntime uses; it may silently fall back to the CPU, so compare it with
    `requested_provider`.
    """

    name: str
    model: Digest
    tags: Digest
    preprocessing: str
    provider: str
    requested_provider: str


class ForwardPass:
    """One or more calls of the model, which another thread can terminate."""

    def __init__(self) -> None:
        self.options = ort.RunOptions()

    def terminate(self) -> None:
        """The call in progress, and each later one, raises an error of onnxruntime."""
        self.options.terminate = True


class OnnxTagger:
    """Create with `OnnxTagger.load`, which fills in the manifest's `input`, `output` and `size`."""

    def __init__(
        self, session: ort.InferenceSession, manifest: Manifest, labels: tuple[Label, ...], identity: Identity
    ) -> None:
        self.manifest = manifest
        self.labels = labels
        self.identity = identity
        self.size = manifest.size or 0
        self._session = session
        self._ratings = np.array([label.category == "rating" for label in labels])
        self._fixed_batch_size = _read_fixed_batch_size(session, manifest)

    @classmethod
    def load(cls, folder: Path, *, providers: Sequence[str] = (CPU,), threads: int = 0) -> "OnnxTagger":
        """Open the model in a folder and run it once on a white picture. SetupError: it cannot be used, and why.

        `providers`: onnxruntime's names in order of preference; the CPU is always the last resort.
        `threads`: CPU threads, 0 = one per core.
        """
        manifest = read_manifest(folder)
        labels = read_labels(folder, manifest)
        files = weight_files(folder / manifest.model)
        session = _open_session(folder / manifest.model, providers, threads)
        identity = Identity(
            name=manifest.name,
            model=_sha256(files),
            tags=_sha256([folder / manifest.tags]),
            preprocessing=PREPROCESSING,
            provider=session.get_providers()[0],
            requested_provider=providers[0] if providers else CPU,
        )
        model = cls(session, _resolve_manifest(manifest, session), labels, identity)
        model._check_it_runs()
        return model

    def predict(self, pictures: Sequence[Pixels], run: ForwardPass | None = None) -> list[tuple[Prediction, ...]]:
        """For each picture: all ratings, then the tags above `STORED_FLOOR`, both by probability (four digits)."""
        step = self._fixed_batch_size or max(1, len(pictures))
        batches = [pictures[start : start + step] for start in range(0, len(pictures), step)]
        run = run or ForwardPass()
        return [self._to_predictions(row) for batch in batches for row in self._probabilities(np.stack(batch), run)]

    def _probabilities(self, batch: Pixels, run: ForwardPass) -> NDArray[np.float64]:
        (scores,) = self._session.run([self.manifest.output], {self.manifest.input: batch}, run.options)
        if scores.shape != (len(batch), len(self.labels)):
            raise SetupError(
                f"the model returns {scores.shape[-1]} values a picture, but its tag list has {len(self.labels)} rows"
            )
        if self.manifest.gives == "logits":
            scores = 1 / (1 + np.exp(-np.clip(scores.astype(np.float64), -60, 60)))
        if not (np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1 + 1e-3):
            raise SetupError(
                "the model's outputs are not probabilities; are they logits? (set `gives` in the manifest)"
            )
        probabilities: NDArray[np.float64] = np.round(scores.astype(np.float64), 4)
        return probabilities.clip(max=1.0)

    def _to_predictions(self, row: NDArray[np.float64]) -> tuple[Prediction, ...]:
        kept = np.flatnonzero((row > STORED_FLOOR) | self._ratings)
        predictions = (
            Prediction(
                tag=self.labels[i].tag,
                probability=float(row[i]),
                category=self.labels[i].category,
            )
            for i in kept
        )
        return tuple(
            sorted(
                predictions,
                key=lambda prediction: (prediction.category != "rating", -prediction.probability, prediction.tag),
            )
        )

    def _check_it_runs(self) -> None:
        shape = (self.size, self.size, 3) if self.manifest.layout == "NHWC" else (3, self.size, self.size)
        try:
            self.predict([np.full(shape, 255, np.float32)])
        except _ONNX_ERRORS as error:
            raise SetupError(f"the model {self.identity.name!r} does not run: {error}") from error


def _open_session(path: Path, providers: Sequence[str], threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    available = [name for name in providers if name in ort.get_available_providers() and name != CPU]
    try:
        return ort.InferenceSession(path, options, providers=[*available, CPU])
    except _ONNX_ERRORS as error:
        raise SetupError(f"{path.name} is not a model that onnxruntime can open: {error}") from error


def _resolve_manifest(manifest: Manifest, session: ort.InferenceSession) -> Manifest:
    """Fill in names and size from the model file. SetupError: the manifest and the file disagree."""
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = [node.name for node in session.get_outputs()]
    name, output = manifest.input or next(iter(inputs), ""), manifest.output or outputs[0]
    if name not in inputs or output not in outputs:
        raise SetupError(f"the model has inputs {sorted(inputs)} and outputs {outputs}, not {name!r} and {output!r}")
    if len(inputs) > 1:
        raise SetupError(f"the model has {len(inputs)} inputs; a tagger has one")
    node = inputs[name]
    if len(node.shape) != 4 or node.type != "tensor(float)":
        raise SetupError(
            f"the model's input is {node.type} of shape {node.shape}; expected: float, a batch of pictures"
        )
    *sides, channels = node.shape[1:] if manifest.layout == "NHWC" else (*node.shape[2:], node.shape[1])
    sizes = {side for side in sides if isinstance(side, int)} | ({manifest.size} if manifest.size else set())
    if len(sizes) != 1 or (isinstance(channels, int) and channels != 3):
        raise SetupError(
            f"the model's input {node.shape} is not an {manifest.layout} square of three channels"
            + (f" of size {manifest.size}" if manifest.size else "; if the file has no fixed size, the manifest must")
        )
    return msgspec.structs.replace(manifest, input=name, output=output, size=sizes.pop())


def _read_fixed_batch_size(session: ort.InferenceSession, manifest: Manifest) -> int | None:
    """1 if the model file fixes the batch dimension (WD v2), None if it is dynamic."""
    batch = next(node.shape[0] for node in session.get_inputs() if node.name == manifest.input)
    if isinstance(batch, int) and batch != 1:
        raise SetupError(f"the model takes exactly {batch} pictures at once; the batch size must be dynamic or 1")
    return batch if isinstance(batch, int) else None


def _sha256(files: Sequence[Path]) -> Digest:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return Digest(digest.hexdigest())
