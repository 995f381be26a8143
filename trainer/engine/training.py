"""The run: a generator of updates. Closing it stops the run; between two updates it can be saved."""

import gc
import io
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from PIL.Image import Image

from contracts.recipe import BuiltinBase
from trainer import families
from trainer.demo.stand_in import make_stand_in
from trainer.engine import checkpoint, export, files
from trainer.engine.adapter import fitted
from trainer.engine.data import Cache, Pictures, Texts, size_of
from trainer.engine.learner import Learner, optimizer_for
from trainer.engine.machine import DTYPES, accelerator_for
from trainer.families import Model
from trainer.messages import BucketSize, Finished, Loading, Planned, Sampled, Saved, TensorFile, Train, Update
from trainer.plan import draw_up

_DEFAULT_PROMPTS = 3
"""So many captions of the manifest are rendered when the recipe names no prompts."""


MAKERS = {"stand-in": make_stand_in}
"""Built-in bases that are made where they should lie when they are first needed; one that lies there is left alone."""


class Bases:
    """The base of the last order, kept loaded: the next one on it starts at once."""

    def __init__(self) -> None:
        self._known: tuple[object, ...] | None = None
        self._model: Model | None = None

    def loaded(self, folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[Model, bool]:
        """The model, and whether it was there already. It is loaded again when a file of the folder has changed."""
        families.index_of(folder)
        wanted = folder, families.signature_of(folder), device, dtype
        if self._model is not None and self._known == wanted:
            return self._model, True
        self._known, self._model = None, None  # Two at once may be one too many for the device.
        self._model = families.load(folder, device=device, dtype=dtype)
        self._known = wanted
        return self._model, False


class Training:
    """One order being carried out. `versions` of the libraries go into the finished files."""

    def __init__(self, order: Train, bases: Bases, versions: dict[str, str]) -> None:
        self._order = order
        self._recipe = order.recipe
        self._bases = bases
        self._versions = versions
        self._work = Path(order.work_folder)
        self._learner: Learner | None = None
        self._fingerprint = ""
        self.step = 0

    def updates(self) -> Generator[Update, None, None]:
        """All there is to tell, in order: what is loaded, the plan, steps, checkpoints, samples, the finished files."""
        with ExitStack() as cleanup:
            learner = yield from self._prepared(cleanup)
            plan = learner.plan
            if plan.samples_at(self.step):
                yield from self._samples(learner)
            for step in range(self.step + 1, plan.steps + 1):
                told = learner.update(step)
                self.step = step
                yield told
                if plan.saves_at(step):
                    yield self._save(learner)
                if plan.samples_at(step):
                    yield from self._samples(learner)
            yield self._finish(learner)

    def keep(self) -> Saved | None:
        """Save the state after the last step done; None when there is nothing to keep yet."""
        return self._save(self._learner) if self._learner is not None and self.step > 0 else None

    def _prepared(self, cleanup: ExitStack) -> Generator[Update, None, Learner]:
        """Everything before the first step, told as it goes."""
        order, recipe = self._order, self._recipe
        yield Loading(what="base")
        accelerator, precision = accelerator_for(recipe)
        folder = Path(order.base_folder)
        if isinstance(recipe.base, BuiltinBase) and recipe.base.name in MAKERS:
            MAKERS[recipe.base.name](folder)
        model, warm = self._bases.loaded(folder, accelerator.device, DTYPES[precision])
        yield Loading(what="base", done=1)
        plan = draw_up(recipe, [size_of(example) for example in order.examples])
        cache = Cache(Path(order.cache_folder))
        pictures = Pictures(order.examples, plan.size_of(), model, cache)
        texts = Texts(order.examples, recipe, model, cache)
        yield from pictures.load()
        yield from texts.load()
        adapter = cleanup.enter_context(fitted(model, recipe))
        learner = Learner(
            recipe=recipe,
            plan=plan,
            model=model,
            adapter=adapter,
            optimizer=accelerator.prepare_optimizer(optimizer_for(recipe.optimizer, adapter)),
            pictures=pictures,
            texts=texts,
            accelerator=accelerator,
            precision=precision,
        )
        self._fingerprint = checkpoint.fingerprint_of(recipe, order.examples, model.identity)
        self._resume(learner)
        self._learner = learner
        # Half a million objects of the libraries need not be looked through for garbage at every other step.
        gc.freeze()
        cleanup.callback(gc.unfreeze)
        yield self._planned(learner, warm=warm)
        return learner

    def _resume(self, learner: Learner) -> None:
        if self._order.resume_from is None:
            return
        path, kind = Path(self._order.resume_from), self._recipe.optimizer
        place = checkpoint.restore(path, self._fingerprint, learner.adapter, learner.optimizer, kind)
        if place.step > learner.plan.steps:
            raise checkpoint.BadCheckpoint(f"it stands after step {place.step}, and {learner.plan.steps} are asked for")
        learner.set_scaler(place.scaler)
        self.step = place.step

    def _planned(self, learner: Learner, *, warm: bool) -> Planned:
        plan = learner.plan
        return Planned(
            step=self.step,
            steps=plan.steps,
            epochs=plan.epochs,
            steps_per_epoch=plan.steps_per_epoch,
            pictures=len(self._order.examples),
            buckets=[
                BucketSize(width=bucket.size[0], height=bucket.size[1], pictures=len(bucket.members))
                for bucket in plan.buckets
            ],
            parameters=sum(weight.numel() for weight in learner.adapter.parameters),
            device=str(learner.accelerator.device),
            precision=learner.precision,
            base=learner.model.identity,
            fingerprint=self._fingerprint,
            warm=warm,
            cut_captions=learner.texts.cut(),
        )

    def _save(self, learner: Learner) -> Saved:
        path = self._work / "checkpoints" / f"step-{self.step:08}.safetensors"
        place = checkpoint.Place(step=self.step, fingerprint=self._fingerprint, scaler=learner.scaler())
        checkpoint.save(path, place, learner.adapter, learner.optimizer)
        return Saved(step=self.step, path=str(path))

    def _samples(self, learner: Learner) -> Iterator[Sampled]:
        """A picture for each prompt, by the adapter as it is now. Training's draws are named, so none is disturbed."""
        sampling, data = self._recipe.sampling, self._recipe.data
        captions = [example.caption for example in self._order.examples[:_DEFAULT_PROMPTS]]
        side = data.resolution // data.bucket_step * data.bucket_step
        for index, prompt in enumerate(sampling.prompts or captions):
            seed = sampling.seed + index
            picture = learner.render(prompt, size=(side, side), seed=seed)
            path = self._work / "samples" / f"step-{self.step:08}-{index:02}.png"
            files.write_whole(path, _png(picture))
            yield Sampled(step=self.step, index=index, prompt=prompt, seed=seed, path=str(path))

    def _finish(self, learner: Learner) -> Finished:
        run = export.Run(
            recipe=self._recipe,
            facts=self._order.facts,
            plan=learner.plan,
            step=self.step,
            precision=learner.precision,
            fingerprint=self._fingerprint,
            base=learner.model.identity,
            versions=self._versions,
        )
        weights = learner.adapter.tensors()
        return Finished(
            step=self.step,
            kohya=self._write("adapter.safetensors", export.kohya(weights, run, learner.model)),
            diffusers=self._write("pytorch_lora_weights.safetensors", export.diffusers(weights, run, learner.model)),
        )

    def _write(self, name: str, content: bytes) -> TensorFile:
        path = files.write_whole(self._work / name, content)
        return TensorFile(path=str(path), tensors=files.data_digest(content))


def _png(picture: Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
