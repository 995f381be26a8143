"""Which tagger models are offered, and that the built-in one is used only by its name."""

from datetime import UTC, datetime

import httpx
import pytest

from contracts.commands.tagging import RequestTagging, TaggingRunResult
from contracts.errors import Rejected
from contracts.ids import WorkerId
from contracts.shipped_models import BUILT_IN_TAGGER, BUILT_IN_TAGGER_DESCRIPTION, shipped_models
from contracts.telemetry import Presence
from contracts.wire.service.telemetry import publish
from gateway.tagger_models import choose_model, offered_models
from tests.gateway.conftest import World, eventually
from tests.gateway.test_http import assert_problem

P = "/api/v1"
WD = "wd-vit-tagger-v3"


def presence(*models: str, worker: str = "one") -> Presence:
    return Presence(service="tagger", worker=WorkerId(worker), state="idle", models=models, at=datetime.now(UTC))


def test_the_built_in_model_is_one_that_we_ship_and_says_what_it_is() -> None:
    assert BUILT_IN_TAGGER in shipped_models("taggers")
    (model,) = offered_models([presence(BUILT_IN_TAGGER)])
    assert (model.description, model.is_default) == (BUILT_IN_TAGGER_DESCRIPTION, False)


def test_the_only_model_that_was_installed_is_the_default() -> None:
    offered = offered_models([presence(BUILT_IN_TAGGER, WD), presence(WD, worker="two")])
    assert [(one.name, one.is_default, one.workers) for one in offered] == [
        (BUILT_IN_TAGGER, False, ("one",)),
        (WD, True, ("one", "two")),
    ]
    assert choose_model(None, offered) == WD
    assert choose_model(BUILT_IN_TAGGER, offered) == BUILT_IN_TAGGER


@pytest.mark.parametrize(
    ("models", "asked", "reason", "sentence"),
    [
        ((BUILT_IN_TAGGER,), None, "no-default-model", f"--model {BUILT_IN_TAGGER}.*WD tagger.*SmilingWolf"),
        ((BUILT_IN_TAGGER, WD, "other"), None, "no-default-model", f"several .*other, {WD}"),
        ((), None, "no-default-model", "no tagger is connected"),
        ((BUILT_IN_TAGGER, WD), "wd", "unknown-model", f"no tagger model 'wd'; installed: {BUILT_IN_TAGGER}, {WD}"),
    ],
)
def test_what_is_not_clear_is_refused(models: tuple[str, ...], asked: str | None, reason: str, sentence: str) -> None:
    with pytest.raises(Rejected, match=sentence) as refused:
        choose_model(asked, offered_models([presence(*models)]))
    assert refused.value.extra["reason"] == reason


def test_without_a_tagger_a_named_model_waits_for_one() -> None:
    assert choose_model(WD, ()) == WD


@pytest.mark.asyncio(loop_scope="module")
async def test_a_run_is_refused_when_it_is_asked_for(world: World) -> None:
    world.catalog.command_results[RequestTagging] = lambda _: TaggingRunResult(id="run_1", status="pending")

    async def tag(**body: str) -> httpx.Response:
        return await world.client.post(f"{P}/tagging/runs", json={"dataset": "cats", **body})

    async def lists(*names: str) -> bool:
        await publish(world.tagger, presence(*names))
        found = (await world.client.get(f"{P}/tagging/models")).json()["items"]
        return [one["name"] for one in found] == list(names)

    async def offers(*names: str) -> None:
        await eventually(lambda: lists(*names))

    await offers(BUILT_IN_TAGGER)
    problem = assert_problem(await tag(), 422, "rejected")
    assert problem["reason"] == "no-default-model" and BUILT_IN_TAGGER_DESCRIPTION in str(problem["detail"])
    assert assert_problem(await tag(model="tiny-random"), 422, "rejected")["reason"] == "unknown-model"
    assert not [one for one in world.catalog.received_commands if isinstance(one.command, RequestTagging)]
    await offers(BUILT_IN_TAGGER, WD)
    assert (await tag()).status_code == 202
    assert world.catalog.received_commands[-1].command == RequestTagging(dataset="cats", model=WD)
