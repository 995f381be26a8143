"""What every route shares: problems, media types, keys, headers, and who may ask."""

import asyncio
import hashlib
import re
from pathlib import Path

import httpx
import msgspec

from contracts import commands, queries
from contracts.asyncapi import asyncapi
from contracts.commands import Receipt
from contracts.errors import Behind, IllegalTransition, KeyReused, StaleVersion
from contracts.events import JobEdited
from contracts.ids import keyed_command_id
from contracts.queries import Page, TagView
from gateway.version import VERSION
from tests.gateway.conftest import World, eventually, world_at
from tests.gateway.stand_in import dataset, image, job
from tests.limits import WAIT

P = "/api/v1"


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = answer.json()
    assert {"type", "title", "status", "detail", "instance", "code"} <= body.keys()
    assert (body["status"], body["code"]) == (status, code)
    return body


async def test_unknown_addresses_and_methods_are_problems(world: World) -> None:
    assert_problem(await world.client.get(f"{P}/nothing"), 404, "not-found")
    wrong = await world.client.put(f"{P}/datasets")
    assert_problem(wrong, 405, "method-not-allowed")
    assert "POST" in wrong.headers["allow"]


async def test_a_body_that_does_not_fit_names_the_field(world: World) -> None:
    answer = await world.client.post(f"{P}/jobs", json={"dataset": "dog", "priority": "urgent"})
    body = assert_problem(answer, 400, "invalid")
    assert "/priority" in str(body["errors"])
    assert_problem(await world.client.post(f"{P}/datasets", json={"name": "x", "nmae": "y"}), 400, "invalid")
    assert_problem(await world.client.post(f"{P}/datasets", content=b"{", headers=JSON), 400, "invalid")
    assert world.catalog.told == []


JSON = {"Content-Type": "application/json"}


async def test_only_json_is_taken_for_json(world: World) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = await world.client.post(f"{P}/datasets", content=b'{"name":"x"}', headers={"Content-Type": kind})
        assert_problem(answer, 415, "unsupported-media-type")
    assert world.catalog.told == []


async def test_a_body_beyond_the_limit_is_refused(world: World) -> None:
    answer = await world.client.post(f"{P}/datasets", content=b'{"name":"' + b"x" * (3 << 20), headers=JSON)
    assert_problem(answer, 413, "too-large")


async def test_errors_of_the_catalog_keep_their_code_and_facts(world: World) -> None:
    world.catalog.wishes[commands.StartJob] = IllegalTransition("it is completed already", allowed=["delete"])
    body = assert_problem(await world.client.post(f"{P}/jobs/job_1/start"), 409, "illegal-transition")
    assert body["allowed"] == ["delete"]

    world.catalog.answers[queries.GetJob] = Behind()
    behind = await world.client.get(f"{P}/jobs/job_1", params={"min_seq": 99})
    assert_problem(behind, 503, "behind")
    assert behind.headers["retry-after"] == "1"
    assert world.catalog.asked[-1].min_seq == 99

    world.catalog.wishes[commands.CreateJob] = KeyReused()
    reused = await world.client.post(f"{P}/jobs", json={"dataset": "dog"}, headers={"Idempotency-Key": "a"})
    assert_problem(reused, 422, "idempotency-key-reused")


async def test_without_a_catalog_the_problem_names_it(world: World) -> None:
    await world.catalog.close()
    answer = await world.client.get(f"{P}/datasets")
    body = assert_problem(answer, 503, "unavailable")
    assert body["service"] == "catalog"
    assert "catalog" in str(body["detail"])


async def test_a_broken_catalog_is_not_told_to_clients(world: World) -> None:
    world.catalog.answers[queries.GetDataset] = RuntimeError("secret /home/me")
    answer = await world.client.get(f"{P}/datasets/dog")
    assert_problem(answer, 500, "internal")
    assert "secret" not in answer.text


async def test_a_write_answers_with_its_sequence_and_where_the_new_thing_is(world: World) -> None:
    answer = await world.client.post(f"{P}/datasets", json={"name": "dog"})
    assert answer.status_code == 201
    assert answer.headers["loratory-seq"] == "7"
    assert answer.headers["location"] == f"{P}/datasets/d1"


async def test_reserved_names_are_refused(world: World) -> None:
    assert_problem(await world.client.post(f"{P}/datasets", json={"name": "Health"}), 422, "rejected")
    assert_problem(await world.client.put(f"{P}/presets/categories", json={}), 405, "method-not-allowed")
    assert world.catalog.told == []


async def test_a_key_makes_the_same_command_of_a_repeated_request(world: World) -> None:
    for _ in range(2):
        await world.client.post(f"{P}/datasets", json={"name": "dog"}, headers={"Idempotency-Key": "once"})
    await world.client.post(f"{P}/datasets", json={"name": "cat"}, headers={"Idempotency-Key": "once"})
    first, again, other = [told.origin for told in world.catalog.told]
    assert first.command == again.command == other.command == keyed_command_id("user:local", "once")
    assert first.fingerprint == again.fingerprint != other.fingerprint
    answer = await world.client.post(f"{P}/datasets", json={"name": "x"}, headers={"Idempotency-Key": "x" * 300})
    assert_problem(answer, 400, "invalid")


async def test_what_was_sent_cannot_be_tried_out_on_the_log(world: World) -> None:
    for key in ("one", "two", None, None):
        headers = {} if key is None else {"Idempotency-Key": key}
        await world.client.put(f"{P}/images/i1/caption", json={"caption": "my neighbour"}, headers=headers)
    one, two, *plain = [told.origin.fingerprint for told in world.catalog.told]
    assert one != two
    assert plain == ["", ""]
    known = hashlib.sha256(f'PUT {P}/images/i1/caption\n{{"caption":"my neighbour"}}'.encode()).hexdigest()
    assert known not in (one, two)


async def test_if_match_is_what_was_seen(world: World) -> None:
    world.catalog.answers[queries.GetImage] = image(tags=(TagView(tag="dog", source="person"),))
    seen = await world.client.get(f"{P}/images/img_1/tags")
    assert seen.json()["tags"] == ["dog"]
    await world.client.put(
        "/api/images/img_1/tags/", json={"tags": ["cat"]}, headers={"If-Match": seen.headers["etag"]}
    )
    assert world.catalog.told[-1].wish.seen == 6

    await world.client.put(f"{P}/images/img_1/tags", json={"tags": []}, headers={"If-Match": "*"})
    assert world.catalog.told[-1].wish.seen is None

    for strange in ('W/"6"', '"six"', "6"):
        answer = await world.client.put(f"{P}/images/img_1/tags", json={"tags": []}, headers={"If-Match": strange})
        assert_problem(answer, 412, "stale-version")

    world.catalog.wishes[commands.ReplaceTags] = StaleVersion(current=9)
    stale = await world.client.put(f"{P}/images/img_1/tags", json={"tags": []}, headers={"If-Match": '"5"'})
    assert assert_problem(stale, 412, "stale-version")["current"] == 9


async def test_a_list_links_to_its_next_page(world: World) -> None:
    world.catalog.answers[queries.ListDatasets] = Page(items=(dataset(),), total=2, next="c&1")
    answer = await world.client.get(f"{P}/datasets", params={"limit": 1})
    assert answer.json()["next"] == "c&1"
    assert answer.headers["link"] == f'<{P}/datasets?limit=1&cursor=c%261>; rel="next"'


async def test_other_sites_may_not_change_anything(world: World) -> None:
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
    ):
        answer = await world.client.post(f"{P}/datasets", json={"name": "x"}, headers=headers)
        assert_problem(answer, 403, "forbidden")
    assert_problem(await world.client.get(f"{P}/datasets", headers={"Host": "evil.example:80"}), 403, "forbidden")
    assert world.catalog.told == []
    own = {"Origin": world.url, "Sec-Fetch-Site": "same-origin"}
    assert (await world.client.post(f"{P}/datasets", json={"name": "x"}, headers=own)).status_code == 201


async def test_with_a_key_nothing_but_the_page_is_open(tmp_path: Path) -> None:
    key = "0123456789abcdef"
    async with world_at(tmp_path, key=key) as world, httpx.AsyncClient(base_url=world.url) as stranger:
        refused = await stranger.get(f"{P}/datasets")
        assert_problem(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"].startswith("Bearer")
        wrong = await stranger.get(f"{P}/version", headers={"Authorization": "Bearer 0123456789abcdeX"})
        assert_problem(wrong, 401, "unauthorized")
        assert (await stranger.get("/", headers={"Accept": "text/html"})).status_code == 200
        assert (await stranger.get("/health/live")).status_code == 200

        await world.client.post(f"{P}/datasets", json={"name": "dog"})
        assert world.catalog.told[-1].origin.actor.startswith("key:")
        assert key not in msgspec.json.encode(world.catalog.told[-1]).decode()

        assert_problem(await stranger.post(f"{P}/session", json={"key": "nonsense"}), 401, "unauthorized")
        opened = await stranger.post(f"{P}/session", json={"key": key})
        assert {"HttpOnly", "SameSite=strict"} <= set(opened.headers["set-cookie"].split("; "))
        assert (await stranger.get(f"{P}/version")).status_code == 200


async def test_the_page_and_the_docs_are_served_from_here_alone(world: World) -> None:
    page = await world.client.get("/", headers={"Accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["vary"] == "Accept"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert (await world.client.get("/")).json()["openapi"] == "/openapi.json"

    docs = await world.client.get("/docs")
    addresses = re.findall(r'(?:src|href)="([^"]+)"', docs.text)
    assert addresses
    for address in addresses:
        assert address.startswith("/web/")
        file = await world.client.get(address)
        assert file.status_code == 200
        assert file.headers["x-content-type-options"] == "nosniff"
        known = await world.client.get(address, headers={"If-None-Match": file.headers["etag"]})
        assert known.status_code == 304
        assert known.content == b""
    assert "http" not in (await world.client.get("/web/docs/start.js")).text


async def test_nothing_outside_the_page_is_served(world: World) -> None:
    for path in ("/web/../app.py", "/web/%2e%2e/app.py", "/web/..%2fapp.py", "/web/.hidden", "/web/", "/web/vendor"):
        assert (await world.client.get(path)).status_code == 404, path


async def test_the_bus_is_described_too(world: World) -> None:
    answer = await world.client.get("/asyncapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == asyncapi(VERSION)


async def test_the_description_refuses_unknown_fields_and_tells_unions_apart(world: World) -> None:
    text = (await world.client.get("/openapi.json")).text
    document = msgspec.json.decode(text)
    schemas = document["components"]["schemas"]
    assert set(re.findall(r"#/components/schemas/([\w.]+)", text)) <= set(schemas)
    bodies = {
        content["schema"]["$ref"].rpartition("/")[2]
        for operations in document["paths"].values()
        for operation in operations.values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        if "$ref" in content["schema"]
    }
    assert bodies
    assert all(schemas[body]["additionalProperties"] is False for body in bodies)
    assert schemas["Recipe"]["properties"]["optimizer"]["discriminator"]["propertyName"] == "type"
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["description"]
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and status != "503":
                    assert list(answer["content"]) == ["application/problem+json"]


async def test_a_cancel_reaches_the_worker_at_once(world: World) -> None:
    nudged = asyncio.Event()

    async def on_nudge(_: object) -> None:
        nudged.set()

    await world.admin.subscribe("ctl.train.job_1", cb=on_nudge)
    await world.admin.flush()
    world.catalog.wishes[commands.CancelJob] = lambda _: Receipt(id="job_1", sequence=9)
    assert (await world.client.post(f"{P}/jobs/job_1/cancel")).status_code == 202
    async with asyncio.timeout(WAIT):
        await nudged.wait()
    world.catalog.wishes[commands.CancelJob] = lambda _: Receipt(id="job_1", sequence=9, changed=False)
    assert (await world.client.post(f"{P}/jobs/job_1/cancel")).status_code == 200


async def test_a_long_poll_answers_when_the_job_changes(world: World) -> None:
    world.catalog.answers[queries.GetJob] = job()
    waiting = asyncio.create_task(world.client.get(f"{P}/jobs/job_1", params={"wait": 20}))

    async def listening() -> bool:
        return world.feed.sockets == 1

    await eventually(listening)
    stored = await world.catalog.append("job_1", JobEdited(name="new"))
    assert (await waiting).status_code == 200
    assert world.catalog.asked[-1].min_seq == stored.sequence
    at_once = await world.client.get(f"{P}/jobs/job_1", params={"wait": 0})
    assert at_once.headers["etag"] == '"8"'
