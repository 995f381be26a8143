"""A training run as a generator of updates. Closing it stops the run; between two updates it can be checkpointed."""

import gc
import io
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from PIL.Image import Image

from contracts.recipe import BuiltinBase
from trainer import families
from trainer.engine import checkpoint, export, files
from trainer.engine.adapter import attach_lora
from trainer.engine.data import EncodingCache, PictureEncodings, TextEncodings, read_size
from trainer.engine.device import DTYPES, create_accelerator
from trainer.engine.learner import Learner
from trainer.engine.optimizers import optimizer_entry
from trainer.engine.tiny_random import make_tiny_random
from trainer.families import Model
from trainer.messages import Finished, Loading, Planned, Sampled, Saved, TensorFile, Train, Update
from trainer.plan import build_plan

_DEFAULT_PROMPTS = 3
"""Number of captions of the manifest that are rendered when the recipe has no prompts."""


BUILTIN_BASE_BUILDERS = {"tiny-random": make_tiny_random}
"""Built-in bases that are generated into their folder on first use; an existing folder is left unchanged."""


class BaseCache:
    """Keeps the last base model loaded, so that the next run on it starts at once."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._model: Model | None = None

    def get(self, folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[Model, bool]:
        """The model, and whether it was already loaded. It is reloaded when a file of the folder has changed."""
        families.read_model_index(folder)
        key = folder, families.folder_signature(folder), device, dtype
        if self._model is not None and self._key == key:
            return self._model, True
        self._key, self._model = None, None  # Freed first: two models may not fit into the device's memory.
        self._model = families.load(folder, device=device, dtype=dtype)
        self._key = key
        return self._model, False


class Training:
    """Runs one request. `versions` of the libraries go into the headers of the finished files."""

    def __init__(self, request: Train, bases: BaseCache, versions: dict[str, str]) -> None:
        self._request = request
        self._recipe = request.recipe
        self._bases = bases
        self._versions = versions
        self._work_dir = Path(request.work_folder)
        self._learner: Learner | None = None
        self._fingerprint = ""
        self.step = 0

    def updates(self) -> Generator[Update, None, None]:
        """Yields in order: loading progress, the plan, steps, checkpoints and samples, the finished files."""
        with ExitStack() as cleanup:
            learner = yield from self._prepare(cleanup)
            plan = learner.plan
            if plan.samples_at(self.step):
                yield from self._samples(learner)
            for step in range(self.step + 1, plan.steps + 1):
                stepped = learner.train_step(step)
                self.step = step
                yield stepped
                if plan.saves_at(step):
                    yield self._save(learner)
                if plan.samples_at(step):
                    yield from self._samples(learner)
            yield self._finish(learner)

    def save_checkpoint(self) -> Saved | None:
        """Save the state after the last completed step; None before the first."""
        return self._save(self._learner) if self._learner is not None and self.step > 0 else None

    def _prepare(self, cleanup: ExitStack) -> Generator[Update, None, Learner]:
        """Everything before the first step; yields loading progress and the plan."""
        request, recipe = self._request, self._recipe
        yield Loading(what="base")
        accelerator, precision = create_accelerator(recipe)
        folder = Path(request.base_folder)
        if isinstance(recipe.base, BuiltinBase) and recipe.base.name in BUILTIN_BASE_BUILDERS:
            BUILTIN_BASE_BUILDERS[recipe.base.name](folder, Path(request.draft_folder))
        model, warm = self._bases.get(folder, accelerator.device, DTYPES[precision])
        yield Loading(what="base", done=1)
        repeats = [example.repeats for example in request.examples]
        plan = build_plan(recipe, [read_size(example) for example in request.examples], repeats)
        cache = EncodingCache(Path(request.cache_folder), drafts=Path(request.draft_folder))
        pictures = PictureEncodings(request.examples, plan.sizes_by_index(), model, cache)
        texts = TextEncodings(request.examples, recipe, model, cache)
        yield from pictures.load()
        yield from texts.load()
        adapter = cleanup.enter_context(attach_lora(model, recipe))
        learner = Learner(
            recipe=recipe,
            plan=plan,
            model=model,
            adapter=adapter,
            optimizer=accelerator.prepare_optimizer(optimizer_entry(recipe.optimizer).create(adapter.parameters)),
            pictures=pictures,
            texts=texts,
            accelerator=accelerator,
            precision=precision,
        )
        self._fingerprint = checkpoint.run_fingerprint(recipe, request.examples, model.base_digest)
        self._resume(learner)
        self._learner = learner
        # Keeps half a million objects of the libraries out of garbage collections during training.
        gc.freeze()
        cleanup.callback(gc.unfreeze)
        yield self._planned(learner, warm=warm)
        return learner

    def _resume(self, learner: Learner) -> None:
        if self._request.resume_from is None:
            return
        path, state_shapes = Path(self._request.resume_from), optimizer_entry(self._recipe.optimizer).state_shapes
        cursor = checkpoint.restore(path, self._fingerprint, learner.adapter, learner.optimizer, state_shapes)
        if cursor.step > learner.plan.steps:
            raise checkpoint.BadCheckpoint(
                f"the checkpoint was saved after step {cursor.step}, but the run has only {learner.plan.steps}"
            )
        learner.load_scaler_state(cursor.scaler)
        self.step = cursor.step

    def _planned(self, learner: Learner, *, warm: bool) -> Planned:
        return Planned(
            step=self.step,
            steps=learner.plan.steps,
            epochs=learner.plan.epochs,
            device=str(learner.accelerator.device),
            precision=learner.precision,
            base=learner.model.base_digest,
            warm=warm,
            truncated_captions=learner.texts.count_truncated(),
            unused_masks=sum(example.has_mask for example in self._request.examples),
        )

    def _save(self, learner: Learner) -> Saved:
        path = self._work_dir / "checkpoints" / f"step-{self.step:08}.safetensors"
        cursor = checkpoint.TrainingCursor(step=self.step, fingerprint=self._fingerprint, scaler=learner.scaler_state())
        checkpoint.save(path, cursor, learner.adapter, learner.optimizer)
        return Saved(step=self.step, path=str(path))

    def _samples(self, learner: Learner) -> Iterator[Sampled]:
        """Render each prompt with the current adapter. Training's draws are named, so sampling does not change them."""
        sampling, data = self._recipe.sampling, self._recipe.data
        captions = [example.caption for example in self._request.examples[:_DEFAULT_PROMPTS]]
        side = data.resolution // data.bucket_step * data.bucket_step
        for index, prompt in enumerate(sampling.prompts or captions):
            seed = sampling.seed + index
            picture = learner.render(prompt, size=(side, side), seed=seed)
            path = self._work_dir / "samples" / f"step-{self.step:08}-{index:02}.png"
            files.write_atomically(path, _png(picture))
            yield Sampled(step=self.step, index=index, prompt=prompt, seed=seed, path=str(path))

    def _finish(self, learner: Learner) -> Finished:
        run = export.RunInfo(
            recipe=self._recipe,
            metadata=self._request.metadata,
            plan=learner.plan,
            step=self.step,
            precision=learner.precision,
            fingerprint=self._fingerprint,
            base=learner.model.base_digest,
            versions=self._versions,
        )
        weights = learner.adapter.tensors()
        kohya = export.export_kohya(weights, run, learner.model)
        diffusers = export.export_diffusers(weights, run, learner.model)
        return Finished(
            step=self.step,
            kohya=self._write("adapter.safetensors", kohya),
            diffusers=self._write("pytorch_lora_weights.safetensors", diffusers),
        )

    def _write(self, name: str, content: bytes) -> TensorFile:
        path = files.write_atomically(self._work_dir / name, content)
        return TensorFile(path=str(path), tensors=files.data_digest(content))


def _png(picture: Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
