"""What the base draws without the trigger stays as it was, where a recipe asks for it."""

import pytest
import torch
from msgspec import structs

from contracts.recipe import Preservation
from tests.trainer.builders import SMALL, Workbench, only
from trainer.engine.data import Cache, Texts
from trainer.engine.training import Training
from trainer.families import Model
from trainer.messages import Finished, Stepped

ASKED = "a red circle"


def model_of(bench: Workbench) -> Model:
    return bench.bases.loaded(bench.base, torch.device("cpu"), torch.float32)[0]


def drift(bench: Workbench, **changes: object) -> float:
    """Mean square of how far a trained denoiser is from its base's answers to ASKED, over 16 noises and times."""
    model, training = model_of(bench), Training(bench.order(length__count=60, **changes), bench.bases, {})
    for update in training.updates():
        if isinstance(update, Finished):
            chance = torch.Generator().manual_seed(3)
            noisy, times = torch.randn((16, 4, 8, 8), generator=chance), torch.arange(30, 990, 60)
            texts = {"hidden": model.encode_text(ASKED)["hidden"].expand(16, -1, -1)}
            with torch.no_grad():
                after = model.predict(noisy, times, texts)
                model.denoiser.disable_adapters()
                before = model.predict(noisy, times, texts)
            return float((after - before).square().mean())
    raise AssertionError("it did not finish")


def test_answers_to_the_prompts_that_are_kept_drift_far_less(bench: Workbench) -> None:
    free = drift(bench)
    kept = drift(bench, preservation={"prompts": [ASKED], "weight": 4.0})
    assert kept < free / 3


def test_what_is_to_be_learnt_is_asked_as_without_it(bench: Workbench) -> None:
    """Before the first update the adapter changes nothing: the base's own answers cost nothing then."""
    free, kept = (
        only(bench.run(bench.order(preservation=keep)), Stepped) for keep in (None, {"prompts": [ASKED], "weight": 2.0})
    )
    assert kept[0].loss == pytest.approx(free[0].loss, rel=1e-5)  # a batch of two adds up in another order
    assert kept[-1].loss != free[-1].loss


def test_without_prompts_the_captions_less_their_trigger_are_kept(bench: Workbench) -> None:
    model, recipe = model_of(bench), structs.replace(SMALL, preservation=Preservation())
    texts = Texts(bench.examples, recipe, model, Cache(bench.folder / "texts"))
    caption = bench.examples[2].caption
    trigger, rest = caption.split(", ", 1)
    assert trigger == "momo"
    assert torch.equal(texts.kept_at(2, 0, 5, 1)["hidden"], model.encode_text(rest)["hidden"])
