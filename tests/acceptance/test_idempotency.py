"""A request sent again with its Idempotency-Key is the same request for ever: same answer, one effect.

Every route that takes a key is asked, by one walk through a workshop whose NATS forgets message ids after a second;
then all of it is asked again: at once, after restarts of everything, and from a read model made anew from the log.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.house import House
from tests.catalog.house import png

pytestmark = [pytest.mark.slow]

WINDOW = 1.0
"""Seconds for which NATS itself knows an id again."""
API = "/api/v1"


@dataclass(frozen=True)
class Step:
    """A request of the walk; `{words}` in its path and body stand for ids that earlier answers gave (`gives`)."""

    route: str
    body: dict[str, Any] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    gives: str = ""

    @property
    def method(self) -> str:
        return self.route.partition(" ")[0]

    @property
    def template(self) -> str:
        return self.route.partition(" ")[2]


WALK = (
    Step(f"POST {API}/datasets", {"name": "cats"}, gives="dataset"),
    Step(f"PATCH {API}/datasets/{{dataset}}", {"name": "black cats"}),
    Step(f"POST {API}/datasets/{{dataset}}/images", files={"1.png": png(1), "2.png": png(2), "3.png": png(3)}),
    Step(f"PUT {API}/datasets/{{dataset}}/thresholds", {"general": 0.3, "character": 0.8}),
    Step(f"PUT {API}/images/{{image}}/tags", {"tags": ["cat", "black"]}),
    Step("PUT /api/images/{image}/tags", {"tags": ["cat"]}),
    Step(f"PATCH {API}/images/{{image}}/tags", {"add": ["asleep"], "remove": ["cat"]}),
    Step(f"PUT {API}/images/{{image}}/caption", {"caption": "a cat"}),
    Step(f"DELETE {API}/images/{{image}}/caption"),
    Step(f"POST {API}/datasets/{{dataset}}/versions", {"trigger": "momo"}),
    Step(f"POST {API}/tagging/runs", {"dataset": "{dataset}"}, gives="run"),
    Step(f"POST {API}/tagging/runs/{{run}}/cancel"),
    Step(f"PUT {API}/presets/ours", {"changes": {"adapter.rank": 4}}),
    Step(f"DELETE {API}/presets/ours"),
    Step(f"PATCH {API}/images/{{image}}/tags", {"add": ["since"]}),
    Step(f"POST {API}/jobs", {"dataset": "{dataset}", "name": "a draft"}, gives="job"),
    Step(f"PATCH {API}/jobs/{{job}}", {"description": "not yet"}),
    Step(f"POST {API}/jobs/{{job}}/start"),
    Step(f"POST {API}/jobs/{{job}}/cancel"),
    Step(f"DELETE {API}/jobs/{{job}}"),
    Step(f"POST {API}/training/single", {"dataset": "{dataset}"}, gives="training"),
    Step(f"POST {API}/jobs/{{training}}/cancel"),
    Step(f"DELETE {API}/images/{{image}}"),
    Step(f"POST {API}/images/{{image}}/erase"),
    Step(f"DELETE {API}/datasets/{{dataset}}"),
    Step(f"POST {API}/datasets/{{dataset}}/erase"),
)


@dataclass(frozen=True)
class Answer:
    status: int
    sequence: str | None
    body: Any


class Walk:
    """The walk through one workshop; asked again, it uses the ids of the first time."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.ids: dict[str, str] = {}

    def all(self) -> list[Answer]:
        with self.house.http() as http:
            return [self._asked(http, number, step) for number, step in enumerate(WALK)]

    def misused(self) -> dict[str, int]:
        """What every key of the walk is answered when it is sent with another request."""
        found = {}
        with self.house.http() as http:
            for number, step in enumerate(WALK):
                other = {"json": {"name": f"other {number}"}, "headers": {"Idempotency-Key": f"walk {number}"}}
                found[f"{number} {step.route}"] = http.post(f"{API}/datasets", **other).status_code
        return found

    def end(self) -> int:
        """Where the log ends, as far as the catalog shows it."""
        with self.house.http() as http:
            return int(http.get(f"{API}/status").json()["log"]["applied"])

    def _asked(self, http: httpx.Client, number: int, step: Step) -> Answer:
        body = None if step.body is None else {name: self._named(value) for name, value in step.body.items()}
        answer = http.request(
            step.method,
            self._named(step.template),
            headers={"Idempotency-Key": f"walk {number}"},
            **({} if body is None else {"json": body}),
            **({"files": [("files", file) for file in step.files.items()]} if step.files else {}),
        )
        assert answer.is_success, (step.route, answer.text)
        if step.gives:
            self.ids.setdefault(step.gives, answer.json()["id"])
        if step.files:
            self.ids.setdefault("image", answer.json()["items"][0]["image"])
        return Answer(answer.status_code, answer.headers.get("Loratory-Seq"), answer.json())

    def _named(self, value: Any) -> Any:
        return value.format(**self.ids) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    shop = House(tmp_path_factory.mktemp("again") / "data", workers=False, LORATORY_DUPLICATE_WINDOW=str(WINDOW))
    try:
        shop.start()
        yield shop
    finally:
        shop.stop()


def test_the_walk_asks_every_route_that_takes_a_key(house: House) -> None:
    with house.http() as http:
        paths = http.get("/openapi.json").json()["paths"]
    keyed = {
        f"{method.upper()} {path}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        if any(parameter["name"] == "Idempotency-Key" for parameter in operation.get("parameters", ()))
    }
    walked = {step.route.replace("{training}", "{job}").replace("/ours", "/{name}") for step in WALK}
    assert keyed == walked


def test_the_same_key_is_the_same_request_for_ever(house: House) -> None:
    walk = Walk(house)
    first = walk.all()
    end = walk.end()
    assert walk.all() == first

    house.stop()
    time.sleep(2 * WINDOW)  # not a wait for something: the window is to be over
    house.start()
    assert walk.all() == first
    assert set(walk.misused().values()) == {422}, walk.misused()

    house.stop()
    for file in (house.data / "catalog").glob("read.db*"):
        Path(file).unlink()
    house.start()
    assert walk.all() == first
    assert set(walk.misused().values()) == {422}, walk.misused()
    assert walk.end() == end
