"""A request repeated with its Idempotency-Key gets the same response, for ever, and has one effect.

One scenario calls every route that takes a key, on a stack whose NATS forgets message ids after a second; then all of
it is repeated: at once, after a restart of everything, and with a read model rebuilt from the log.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.local_stack import LocalStack
from tests.catalog.harness import png

pytestmark = [pytest.mark.slow]

"""For this time NATS itself recognises a repeated message id."""
API = "/api/v1"


@dataclass(frozen=True)
class Step:
    """One request; `{name}` in path and body is replaced by the id that an earlier step stored (`stores_id_as`)."""

    route: str
    body: dict[str, Any] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    stores_id_as: str = ""

    @property
    def method(self) -> str:
        return self.route.partition(" ")[0]

    @property
    def template(self) -> str:
        return self.route.partition(" ")[2]


SCENARIO = (
    Step(f"POST {API}/datasets", {"name": "cats"}, stores_id_as="dataset"),
    Step(f"PATCH {API}/datasets/{{dataset}}", {"name": "black cats"}),
    Step(f"POST {API}/datasets/{{dataset}}/images", files={"1.png": png(1), "2.png": png(2), "3.png": png(3)}),
    Step(f"PUT {API}/datasets/{{dataset}}/thresholds", {"general": 0.3, "character": 0.8}),
    Step(f"PUT {API}/datasets/{{dataset}}/rules", {"deny": ["watermark"]}),
    Step(f"PUT {API}/datasets/{{dataset}}/text-settings", {"trigger": "momo", "template": 2, "read_as": "caption"}),
    Step(f"PUT {API}/datasets/{{dataset}}/repeats", {"all": True, "repeats": 2}),
    Step(f"POST {API}/datasets/{{dataset}}/texts", {"texts": {"{image}": "cat, black, on_a_roof"}}),
    Step(f"POST {API}/datasets/{{dataset}}/texts/read", {"all": True, "read_as": "tags"}),
    Step(f"PUT {API}/images/{{image}}/tags", {"tags": ["cat", "black"]}),
    Step("PUT /api/images/{image}/tags", {"tags": ["cat"]}),
    Step(f"PATCH {API}/images/{{image}}/tags", {"add": ["asleep"], "remove": ["cat"]}),
    Step(f"POST {API}/datasets/{{dataset}}/edits", {"all": True, "add": ["indoors"]}),
    Step(f"POST {API}/datasets/{{dataset}}/reviewed", {"all": True}),
    Step(f"PUT {API}/images/{{image}}/caption", {"caption": "a cat"}),
    Step(f"DELETE {API}/images/{{image}}/caption"),
    Step(f"PUT {API}/images/{{image}}/tag-order", {"tags": ["asleep", "black"]}),
    Step(f"POST {API}/datasets/{{dataset}}/versions", {"trigger": "momo"}),
    Step(f"POST {API}/tagging/runs", {"dataset": "{dataset}", "model": "demo"}, stores_id_as="run"),
    Step(f"POST {API}/tagging/runs/{{run}}/cancel"),
    Step(f"POST {API}/datasets/{{dataset}}/undo", {"run": "{run}"}),
    Step(f"PUT {API}/presets/ours", {"changes": {"adapter.rank": 4}}),
    Step(f"DELETE {API}/presets/ours"),
    Step(f"PATCH {API}/images/{{image}}/tags", {"add": ["since"]}),
    Step(f"POST {API}/jobs", {"dataset": "{dataset}", "name": "a draft"}, stores_id_as="job"),
    Step(f"PATCH {API}/jobs/{{job}}", {"description": "not yet"}),
    Step(f"POST {API}/jobs/{{job}}/start"),
    Step(f"POST {API}/jobs/{{job}}/cancel"),
    Step(f"DELETE {API}/jobs/{{job}}"),
    Step(f"POST {API}/training/single", {"dataset": "{dataset}"}, stores_id_as="training"),
    Step(f"POST {API}/jobs/{{training}}/cancel"),
    Step(f"POST {API}/training/quick-start", {"dataset": "{dataset}", "preset": "demo"}, stores_id_as="quick"),
    Step(f"POST {API}/jobs/{{quick}}/cancel"),
    Step(f"DELETE {API}/images/{{image}}"),
    Step(f"POST {API}/images/{{image}}/erase"),
    Step(f"DELETE {API}/datasets/{{dataset}}"),
    Step(f"POST {API}/datasets/{{dataset}}/erase"),
)


@dataclass(frozen=True)
class ReceivedResponse:
    status: int
    sequence: str | None
    body: Any


class ScenarioRunner:
    """Runs the scenario on one stack; repetitions use the ids of the first run."""

    def __init__(self, stack: LocalStack) -> None:
        self.stack = stack
        self.ids: dict[str, str] = {}

    def run(self) -> list[ReceivedResponse]:
        with self.stack.http() as http:
            return [self._send(http, number, step) for number, step in enumerate(SCENARIO)]

    def reuse_keys(self) -> dict[str, int]:
        """Status codes when each key of the scenario is sent with another request."""
        statuses = {}
        with self.stack.http() as http:
            for number, step in enumerate(SCENARIO):
                other, key = {"name": f"other {number}"}, {"Idempotency-Key": f"step {number}"}
                response = http.post(f"{API}/datasets", json=other, headers=key)
                statuses[f"{number} {step.route}"] = response.status_code
        return statuses

    def applied_sequence(self) -> int:
        """The last sequence in the read model."""
        with self.stack.http() as http:
            return int(http.get(f"{API}/status").json()["log"]["applied"])

    def _send(self, http: httpx.Client, number: int, step: Step) -> ReceivedResponse:
        body = None if step.body is None else self._fill_in(step.body)
        response = http.request(
            step.method,
            self._fill_in(step.template),
            headers={"Idempotency-Key": f"step {number}"},
            json=body,
            files=[("files", file) for file in step.files.items()] or None,
        )
        assert response.is_success, (step.route, response.text)
        if step.stores_id_as:
            self.ids.setdefault(step.stores_id_as, response.json()["id"])
        if step.files:
            self.ids.setdefault("image", response.json()["items"][0]["image"])
        return ReceivedResponse(response.status_code, response.headers.get("Loratory-Seq"), response.json())

    def _fill_in(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._fill_in(name): self._fill_in(one) for name, one in value.items()}
        return value.format(**self.ids) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    running = LocalStack(tmp_path_factory.mktemp("idempotency") / "data", workers=False)
    try:
        running.start()
        yield running
    finally:
        running.stop()


def test_the_scenario_calls_every_route_that_takes_a_key(stack: LocalStack) -> None:
    with stack.http() as http:
        paths = http.get("/openapi.json").json()["paths"]
    routes_with_key = {
        f"{method.upper()} {path}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        if any(parameter["name"] == "Idempotency-Key" for parameter in operation.get("parameters", ()))
    }
    called = {
        step.route.replace("{training}", "{job}").replace("{quick}", "{job}").replace("/ours", "/{name}")
        for step in SCENARIO
    }
    assert routes_with_key == called


def test_repeated_keys_get_the_first_response_for_ever(stack: LocalStack) -> None:
    scenario = ScenarioRunner(stack)
    first = scenario.run()
    end = scenario.applied_sequence()
    assert scenario.run() == first

    stack.stop()
    stack.start()
    assert scenario.run() == first
    assert set(scenario.reuse_keys().values()) == {422}, scenario.reuse_keys()

    stack.stop()
    for file in (stack.data / "catalog").glob("read.db*"):
        Path(file).unlink()
    stack.start()
    assert scenario.run() == first
    assert set(scenario.reuse_keys().values()) == {422}, scenario.reuse_keys()
    assert scenario.applied_sequence() == end
