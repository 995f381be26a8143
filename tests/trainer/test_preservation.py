"""Prior preservation: without the trigger, the base's predictions change less."""

import pytest
import torch
from msgspec import structs

from contracts.recipe import Preservation
from tests.trainer.builders import SMALL, Workbench, only
from trainer.engine.data import EncodingCache, TextEncodings
from trainer.engine.training import Training
from trainer.families import Model
from trainer.messages import Finished, Stepped

PROMPT = "a red circle"


def model_of(bench: Workbench) -> Model:
    return bench.bases.get(bench.base, torch.device("cpu"), torch.float32)[0]


def drift(bench: Workbench, **changes: object) -> float:
    """Mean squared difference between the predictions of trained denoiser and base for PROMPT, over 16 timesteps."""
    model, training = model_of(bench), Training(bench.request(length__count=40, **changes), bench.bases, {})
    for update in training.updates():
        if isinstance(update, Finished):
            generator = torch.Generator().manual_seed(3)
            noisy_latents, timesteps = torch.randn((16, 4, 8, 8), generator=generator), torch.arange(30, 990, 60)
            texts = {"hidden": model.encode_text(PROMPT)["hidden"].expand(16, -1, -1)}
            with torch.no_grad():
                after = model.predict(noisy_latents, timesteps, texts)
                model.denoiser.disable_adapters()
                before = model.predict(noisy_latents, timesteps, texts)
            return float((after - before).square().mean())
    raise AssertionError("it did not finish")


@pytest.mark.slow
def test_predictions_for_preserved_prompts_drift_far_less(bench: Workbench) -> None:
    free = drift(bench)
    preserved = drift(bench, preservation={"prompts": [PROMPT], "weight": 4.0})
    assert preserved < free / 3


@pytest.mark.slow
def test_preservation_does_not_change_the_loss_of_the_first_step(bench: Workbench) -> None:
    """Before the first update the adapter changes nothing, so the preservation loss is 0."""
    free, preserved = (
        only(bench.run(bench.request(preservation=preservation)), Stepped)
        for preservation in (None, {"prompts": [PROMPT], "weight": 2.0})
    )
    assert preserved[0].loss == pytest.approx(free[0].loss, rel=1e-5)  # sums over a batch of two are in another order
    assert preserved[-1].loss != free[-1].loss


def test_without_prompts_captions_without_their_trigger_are_preserved(bench: Workbench) -> None:
    model, recipe = model_of(bench), structs.replace(SMALL, preservation=Preservation())
    texts = TextEncodings(bench.examples, recipe, model, EncodingCache(bench.folder / "texts"))
    caption = bench.examples[2].caption
    trigger, rest = caption.split(", ", 1)
    assert trigger == "momo"
    assert torch.equal(texts.get_preservation(2, 0, 5, 1)["hidden"], model.encode_text(rest)["hidden"])
