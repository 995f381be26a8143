"""Behaviour shared by all routes: problems, media types, idempotency keys, headers, access control."""

import asyncio
import hashlib
import re
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from contracts.asyncapi import asyncapi
from contracts.commands.datasets import (
    CreateDataset,
    DatasetResult,
    EditMany,
    EditManyResult,
    EraseImage,
    ImageResult,
    ReplaceTags,
    ReviewImages,
    ReviewResult,
)
from contracts.commands.jobs import CancelJob, CreateJob, JobResult, StartJob
from contracts.commands.tagging import RequestTagging, TaggingRunResult
from contracts.errors import Behind, IllegalTransition, KeyReused, StaleVersion
from contracts.events.jobs import JobEdited
from contracts.filter_text import parse_filter, parse_sort
from contracts.filters import AllImages, Matching, Selection, TheseImages
from contracts.ids import DatasetId, ImageId, RunId, keyed_command_id
from contracts.queries.base import Page
from contracts.queries.datasets import (
    EditExample,
    EditPreview,
    GetDataset,
    GetImage,
    ListDatasets,
    ListImages,
    ListTags,
    PreviewEdit,
    TagCount,
    TagEffect,
    TagView,
)
from contracts.queries.jobs import GetJob
from gateway.http.problems import PROBLEMS
from gateway.limits import KEY_LIMITS
from gateway.version import VERSION
from tests.gateway.conftest import World, eventually, world_at
from tests.gateway.fake_catalog import dataset, image, job
from tests.limits import WAIT

P = "/api/v1"
pytestmark = pytest.mark.asyncio(loop_scope="module")


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = response.json()
    assert {"type", "title", "status", "detail", "instance", "code"} <= body.keys()
    assert (body["status"], body["code"]) == (status, code)
    return body


async def test_unknown_paths_and_methods_are_problems(world: World) -> None:
    assert_problem(await world.client.get(f"{P}/nothing"), 404, "not-found")
    wrong = await world.client.put(f"{P}/datasets")
    assert_problem(wrong, 405, "method-not-allowed")
    assert "POST" in wrong.headers["allow"]


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("path", "body", "pointer", "sentence"),
    [
        ("jobs", b'{"dataset":"dog","priority":"urgent"}', "/priority", "priority cannot be 'urgent'"),
        ("jobs", b'{"dataset":7}', "/dataset", "dataset must be a string or null, not a whole number"),
        (
            *("jobs", b"{}", "/dataset"),
            "name the data set by exactly one of `dataset`, `dataset_name` and `source_path`",
        ),
        ("datasets", b"{}", "/name", "name is required"),
        ("jobs", b"[]", "", "the body must be an object, not a list"),
        ("datasets", b'{"name":"x","nmae":"y"}', "/nmae", "nmae is not a known field"),
        ("datasets", b'{"name":""}', "/name", "name must not be empty"),
        (
            "jobs",
            b'{"dataset":"dog","recipe":{"length":{"type":"steps","count":0}}}',
            "/recipe/length/count",
            "recipe.length.count must be at least 1",
        ),
        (
            "jobs",
            b'{"dataset":"dog","recipe":{"data":{"repeats":0}}}',
            "/recipe/data/repeats",
            "recipe.data.repeats must be at least 1",
        ),
        ("jobs", b'{"dataset":"dog","labels":["a",1]}', "/labels/1", "labels[1] must be a string, not a whole number"),
    ],
)
async def test_an_invalid_body_names_the_field_in_a_sentence(
    world: World, path: str, body: bytes, pointer: str, sentence: str
) -> None:
    problem = assert_problem(await world.client.post(f"{P}/{path}", content=body, headers=JSON), 400, "invalid")
    assert problem["detail"] == sentence
    assert problem["errors"] == [{"pointer": pointer, "message": sentence}]
    assert world.catalog.received_commands == []


async def test_all_errors_of_a_body_are_said_at_once(world: World) -> None:
    body = {"dataset": "", "labels": ["a", 1], "recipe": {"length": {"type": "steps", "count": 0}}, "spede": 3}
    problem = assert_problem(await world.client.post(f"{P}/jobs", json=body), 400, "invalid")
    assert problem["errors"] == [
        {"pointer": "/dataset", "message": "dataset must not be empty"},
        {"pointer": "/recipe/length/count", "message": "recipe.length.count must be at least 1"},
        {"pointer": "/labels/1", "message": "labels[1] must be a string, not a whole number"},
        {"pointer": "/spede", "message": "spede is not a known field"},
    ]
    assert problem["detail"] == "; ".join(str(one["message"]) for one in problem["errors"])
    assert world.catalog.received_commands == []


async def test_malformed_json_is_refused(world: World) -> None:
    problem = assert_problem(await world.client.post(f"{P}/datasets", content=b"{", headers=JSON), 400, "invalid")
    assert problem["detail"] == "malformed JSON: it ends too early"
    assert world.catalog.received_commands == []


async def test_invalid_parameters_are_all_named_in_sentences(world: World) -> None:
    response = await world.client.get(f"{P}/events", params={"until": "soon", "aggregate_kind": "picture"})
    problem = assert_problem(response, 400, "invalid")
    assert problem["detail"] == "; ".join(
        [
            "aggregate_kind cannot be 'picture'",
            "until must be a date and time as in 2026-11-21T12:00:00Z (RFC 3339)",
        ]
    )
    response = await world.client.get(f"{P}/events", params={"limit": "many"})
    assert assert_problem(response, 400, "invalid")["detail"] == "limit must be a whole number"
    response = await world.client.get(f"{P}/images", params={"dataset": "x" * 201})
    assert assert_problem(response, 400, "invalid")["errors"] == [
        {"pointer": "/dataset", "message": "dataset must have at most 200 characters"}
    ]


async def test_only_json_is_accepted_as_json(world: World) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        response = await world.client.post(f"{P}/datasets", content=b'{"name":"x"}', headers={"Content-Type": kind})
        assert_problem(response, 415, "unsupported-media-type")
    assert world.catalog.received_commands == []


async def test_a_body_above_the_size_limit_is_refused(world: World) -> None:
    response = await world.client.post(f"{P}/datasets", content=b'{"name":"' + b"x" * (3 << 20), headers=JSON)
    assert_problem(response, 413, "too-large")


async def test_errors_of_the_catalog_keep_their_code_and_extra_members(world: World) -> None:
    world.catalog.command_results[StartJob] = IllegalTransition("it is completed already", allowed=["delete"])
    body = assert_problem(await world.client.post(f"{P}/jobs/job_1/start"), 409, "illegal-transition")
    assert body["allowed"] == ["delete"]

    world.catalog.query_results[GetJob] = Behind()
    behind = await world.client.get(f"{P}/jobs/job_1", params={"min_seq": 99})
    assert_problem(behind, 503, "behind")
    assert behind.headers["retry-after"] == "1"
    assert world.catalog.received_queries[-1].min_seq == 99

    world.catalog.command_results[CreateJob] = KeyReused()
    reused = await world.client.post(f"{P}/jobs", json={"dataset": "dog"}, headers={"Idempotency-Key": "a"})
    assert_problem(reused, 422, "idempotency-key-reused")


async def test_a_missing_catalog_is_named_in_the_problem(fresh_world: World) -> None:
    await fresh_world.catalog.close()
    response = await fresh_world.client.get(f"{P}/datasets")
    body = assert_problem(response, 503, "unavailable")
    assert body["service"] == "catalog"
    assert "catalog" in str(body["detail"])


async def test_internal_errors_of_the_catalog_are_not_shown_to_clients(world: World) -> None:
    world.catalog.query_results[GetDataset] = RuntimeError("secret /home/me")
    response = await world.client.get(f"{P}/datasets/dog")
    assert_problem(response, 500, "internal")
    assert "secret" not in response.text


async def test_a_write_returns_its_sequence_and_the_location_of_the_new_resource(world: World) -> None:
    response = await world.client.post(f"{P}/datasets", json={"name": "dog"})
    assert response.status_code == 201
    assert response.headers["loratory-seq"] == "7"
    assert response.headers["location"] == f"{P}/datasets/d1"


async def test_a_write_that_is_not_shown_yet_is_accepted(world: World) -> None:
    results = world.catalog.command_results
    results[CreateDataset] = lambda _: DatasetResult(id="d1", name="dog", sequence=8, shown=False)
    results[ReplaceTags] = lambda _: ImageResult(id="i1", sequence=9, shown=False)
    results[EraseImage] = lambda _: ImageResult(id="i1", sequence=10, shown=False)
    for answered, sequence in (
        (await world.client.post(f"{P}/datasets", json={"name": "dog"}), 8),
        (await world.client.put(f"{P}/images/i1/tags", json={"tags": ["cat"]}), 9),
        (await world.client.post(f"{P}/images/i1/erase"), 10),
    ):
        assert (answered.status_code, answered.headers["loratory-seq"]) == (202, str(sequence))
        assert (answered.json()["sequence"], answered.json()["shown"]) == (sequence, False)
    assert world.catalog.received_queries == []


async def test_every_write_documents_that_it_may_not_be_shown_yet(world: World) -> None:
    paths = (await world.client.get("/openapi.json")).json()["paths"]
    operations = [operation for path in paths.values() for operation in path.values() if isinstance(operation, dict)]
    writes = [
        operation for operation in operations if _result_schemas(operation) & {f"{kind}Result" for kind in RESULT_KINDS}
    ]
    assert len(writes) >= 22
    assert [operation["operationId"] for operation in writes if "202" not in operation["responses"]] == []


RESULT_KINDS = ("Dataset", "Image", "Job", "Preset", "TaggingRun", "Version", "Upload", "Erasure", "Undo")


def _result_schemas(operation: dict[str, Any]) -> set[str]:
    contents = [content for answer in operation["responses"].values() for content in answer.get("content", {}).values()]
    return {content["schema"].get("$ref", "").rpartition("/")[2] for content in contents}


async def test_reserved_names_are_refused(world: World) -> None:
    assert_problem(await world.client.post(f"{P}/datasets", json={"name": "Health"}), 422, "rejected")
    assert_problem(await world.client.put(f"{P}/presets/categories", json={}), 405, "method-not-allowed")
    assert world.catalog.received_commands == []


async def test_requests_with_the_same_key_have_the_same_command_id(world: World) -> None:
    for _ in range(2):
        await world.client.post(f"{P}/datasets", json={"name": "dog"}, headers={"Idempotency-Key": "once"})
    await world.client.post(f"{P}/datasets", json={"name": "cat"}, headers={"Idempotency-Key": "once"})
    first, again, other = [envelope.metadata for envelope in world.catalog.received_commands]
    assert first.command_id == again.command_id == other.command_id == keyed_command_id("user:local", "once")
    assert first.fingerprint == again.fingerprint != other.fingerprint
    response = await world.client.post(f"{P}/datasets", json={"name": "x"}, headers={"Idempotency-Key": "x" * 300})
    assert_problem(response, 400, "invalid")


async def test_the_stored_fingerprint_does_not_reveal_what_was_sent(world: World) -> None:
    for key in ("one", "two", None, None):
        headers = {} if key is None else {"Idempotency-Key": key}
        await world.client.put(f"{P}/images/i1/caption", json={"caption": "my neighbour"}, headers=headers)
    one, two, *plain = [envelope.metadata.fingerprint for envelope in world.catalog.received_commands]
    assert one != two
    assert plain == ["", ""]
    known = hashlib.sha256(f'PUT {P}/images/i1/caption\n{{"caption":"my neighbour"}}'.encode()).hexdigest()
    assert known not in (one, two)


async def test_if_match_is_passed_to_the_catalog(world: World) -> None:
    world.catalog.query_results[GetImage] = image(tags=(TagView(tag="dog", source="person"),))
    seen = await world.client.get(f"{P}/images/img_1/tags")
    assert seen.json()["tags"] == ["dog"]
    await world.client.put(
        "/api/images/img_1/tags/", json={"tags": ["cat"]}, headers={"If-Match": seen.headers["etag"]}
    )
    assert world.catalog.received_commands[-1].command.seen == 6

    await world.client.put(f"{P}/images/img_1/tags", json={"tags": []}, headers={"If-Match": "*"})
    assert world.catalog.received_commands[-1].command.seen is None

    for strange in ('W/"6"', '"six"', "6"):
        response = await world.client.put(f"{P}/images/img_1/tags", json={"tags": []}, headers={"If-Match": strange})
        assert_problem(response, 412, "stale-version")

    world.catalog.command_results[ReplaceTags] = StaleVersion(current=9)
    stale = await world.client.put(f"{P}/images/img_1/tags", json={"tags": []}, headers={"If-Match": '"5"'})
    assert assert_problem(stale, 412, "stale-version")["current"] == 9


async def test_a_list_links_to_its_next_page(world: World) -> None:
    world.catalog.query_results[ListDatasets] = Page(items=(dataset(),), total=2, next="c&1")
    response = await world.client.get(f"{P}/datasets", params={"limit": 1})
    assert response.json()["next"] == "c&1"
    assert response.headers["link"] == f'<{P}/datasets?limit=1&cursor=c%261>; rel="next"'


async def test_requests_from_other_sites_are_refused(world: World) -> None:
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
    ):
        response = await world.client.post(f"{P}/datasets", json={"name": "x"}, headers=headers)
        assert_problem(response, 403, "forbidden")
    assert_problem(await world.client.get(f"{P}/datasets", headers={"Host": "evil.example:80"}), 403, "forbidden")
    assert world.catalog.received_commands == []
    own = {"Origin": world.url, "Sec-Fetch-Site": "same-origin"}
    assert (await world.client.post(f"{P}/datasets", json={"name": "x"}, headers=own)).status_code == 201


async def test_with_an_api_key_only_the_page_is_public(tmp_path: Path) -> None:
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
        assert world.catalog.received_commands[-1].metadata.actor.startswith("key:")
        assert key not in msgspec.json.encode(world.catalog.received_commands[-1]).decode()

        assert_problem(await stranger.post(f"{P}/session", json={"key": "nonsense"}), 401, "unauthorized")
        opened = await stranger.post(f"{P}/session", json={"key": key})
        assert {"HttpOnly", "SameSite=strict"} <= set(opened.headers["set-cookie"].split("; "))
        assert (await stranger.get(f"{P}/version")).status_code == 200
        copied = dict(stranger.cookies)
        assert (await stranger.delete(f"{P}/session")).status_code == 204
        async with httpx.AsyncClient(base_url=world.url, cookies=copied) as thief:
            assert_problem(await thief.get(f"{P}/version"), 401, "unauthorized")


async def test_too_many_wrong_keys_are_slowed_down_and_the_right_one_is_not(tmp_path: Path) -> None:
    key = "0123456789abcdef"
    async with world_at(tmp_path, key=key) as world, httpx.AsyncClient(base_url=world.url) as stranger:
        wrong = {"Authorization": "Bearer 0123456789abcdeX"}
        for _ in range(KEY_LIMITS.attempts):
            assert_problem(await stranger.get(f"{P}/version", headers=wrong), 401, "unauthorized")
        for slowed in (
            await stranger.get(f"{P}/version", headers=wrong),
            await stranger.post(f"{P}/session", json={"key": "nonsense"}),
        ):
            assert_problem(slowed, 429, "too-many-attempts")
            assert 1 <= int(slowed.headers["retry-after"]) <= KEY_LIMITS.seconds_per_attempt
        assert_problem(await stranger.get(f"{P}/version"), 401, "unauthorized")  # without a key
        assert (await world.client.get(f"{P}/version")).status_code == 200
        assert (await stranger.post(f"{P}/session", json={"key": key})).status_code == 200


async def test_pages_of_allowed_origins_may_use_the_api(tmp_path: Path) -> None:
    studio, key = "https://studio.example", "0123456789abcdef"
    settings = {"cors_origins": (studio, "http://localhost:3000")}
    async with world_at(tmp_path, key=key, settings=settings) as world:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        async with httpx.AsyncClient(base_url=world.url) as stranger:  # browsers ask without a key
            preflight = await stranger.options(f"{P}/datasets", headers={"Origin": studio, **asked})
            assert preflight.status_code == 204
            assert preflight.headers["access-control-allow-origin"] == studio
            assert "Authorization" in preflight.headers["access-control-allow-headers"]
            refused = await stranger.options(f"{P}/datasets", headers={"Origin": "https://evil.example", **asked})
            assert "access-control-allow-origin" not in refused.headers
            unknown = await stranger.get(f"{P}/version", headers={"Origin": studio})
            assert_problem(unknown, 401, "unauthorized")
            assert unknown.headers["access-control-allow-origin"] == studio  # so that the page can read why
        headers = {"Origin": studio, "Sec-Fetch-Site": "cross-site"}
        created = await world.client.post(f"{P}/datasets", json={"name": "dog"}, headers=headers)
        assert created.status_code == 201
        assert "Loratory-Seq" in created.headers["access-control-expose-headers"]
        assert created.headers["cross-origin-resource-policy"] == "cross-origin"
        assert "access-control-allow-credentials" not in created.headers
        for origin in ("https://evil.example", "https://studio.example.evil", "http://studio.example", "null"):
            foreign = await world.client.post(
                f"{P}/datasets", json={"name": "x"}, headers={**headers, "Origin": origin}
            )
            assert_problem(foreign, 403, "forbidden")
            assert "access-control-allow-origin" not in foreign.headers


async def test_the_page_and_the_docs_load_nothing_from_other_sites(world: World) -> None:
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


async def test_the_type_of_a_problem_is_the_address_of_a_page_that_explains_it(world: World) -> None:
    kind = (await world.client.get(f"{P}/nowhere")).json()["type"]
    page = await world.client.get(kind)
    assert (page.status_code, page.headers["content-type"].partition(";")[0]) == (200, "text/html")
    assert "It does not exist." in page.text
    index = (await world.client.get("/docs/problems")).text
    codes = re.findall(r'href="/docs/problems/([a-z-]+)"', index)
    assert codes == sorted(PROBLEMS)
    assert {"invalid", "rejected", "stale-version", "headers-too-large", "internal"} <= set(codes)
    for code in codes:
        assert (await world.client.get(f"/docs/problems/{code}")).status_code == 200
    assert_problem(await world.client.get("/docs/problems/<script>"), 404, "not-found")
    assert "://" not in page.text + index


async def test_files_outside_the_page_are_not_served(world: World) -> None:
    for path in ("/web/../app.py", "/web/%2e%2e/app.py", "/web/..%2fapp.py", "/web/.hidden", "/web/", "/web/vendor"):
        assert (await world.client.get(path)).status_code == 404, path


async def test_the_asyncapi_document_is_served(world: World) -> None:
    response = await world.client.get("/asyncapi.json")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == asyncapi(VERSION)


async def test_the_openapi_document_forbids_unknown_fields_and_has_discriminators(world: World) -> None:
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
            for status, response in operation["responses"].items():
                if int(status) >= 400 and status != "503":
                    assert list(response["content"]) == ["application/problem+json"]


async def test_a_cancel_wakes_the_worker_at_once(world: World) -> None:
    woken = asyncio.Event()

    async def on_wake(_: object) -> None:
        woken.set()

    await world.trainer.subscribe("ctl.train.job_1", cb=on_wake)
    await world.trainer.flush()
    world.catalog.command_results[CancelJob] = lambda _: JobResult(id="job_1", status="running", sequence=9)
    assert (await world.client.post(f"{P}/jobs/job_1/cancel")).status_code == 202
    async with asyncio.timeout(WAIT):
        await woken.wait()
    world.catalog.command_results[CancelJob] = lambda _: JobResult(
        id="job_1", status="running", sequence=9, changed=False
    )
    assert (await world.client.post(f"{P}/jobs/job_1/cancel")).status_code == 200


async def test_a_long_poll_returns_when_the_job_changes(world: World) -> None:
    world.catalog.query_results[GetJob] = job()
    long_poll = asyncio.create_task(world.client.get(f"{P}/jobs/job_1", params={"wait": 20}))

    async def is_subscribed() -> bool:
        return len(world.feed.subscribers) == 1

    await eventually(is_subscribed)
    recorded = await world.catalog.append("job_1", JobEdited(name="new"))
    assert (await long_poll).status_code == 200
    assert world.catalog.received_queries[-1].min_seq == recorded.sequence
    immediate = await world.client.get(f"{P}/jobs/job_1", params={"wait": 0})
    assert immediate.headers["etag"] == '"8"'


async def test_a_filter_and_a_sort_order_reach_the_catalog_as_values(world: World) -> None:
    world.catalog.query_results[ListImages] = Page(items=(), total=0)
    given = {"filter": 'Hat -solo (cap | "<3")', "sort": "-conf:Hat", "tag": "a"}
    response = await world.client.get(f"{P}/datasets/cats/images", params=given)
    assert response.status_code == 200, response.text
    (query,) = [one for one in world.catalog.received_queries if isinstance(one, ListImages)]
    assert query.filter == parse_filter('hat -solo (cap | "<3")')
    assert query.sort == parse_sort("-conf:hat")
    assert query.tag == "a"


@pytest.mark.parametrize("path", ["images", "datasets/dog/images"])
async def test_images_are_listed_as_the_catalog_shows_them(world: World, path: str) -> None:
    tag = TagView(tag="hund_ü", source="model", probability=0.123456789, run=RunId("run_1"), sequence=5)
    first = image(name='"ein" Hund\n.png', tags=(tag, TagView(tag="solo", source="person")), rejected=("hat",))
    page = Page(items=(first, image(id="img_2", suggestions=(tag,), rating="general")), total=7, next="abc")
    world.catalog.query_results[ListImages] = page
    response = await world.client.get(f"{P}/{path}", params={"limit": 2})
    assert response.content == msgspec.json.encode(page)
    assert response.headers["link"] == f'<{P}/{path}?limit=2&cursor=abc>; rel="next"'


@pytest.mark.parametrize(
    ("parameter", "text", "position", "sentence"),
    [
        ("filter", "hat (cap", 5, "this parenthesis is never closed"),
        ("filter", "", 1, "a term is missing here"),
        ("filter", "score>5", 1, "score is nothing that can be compared; put quotes around a tag"),
        ("sort", "conf:a,b", 6, "a tag cannot contain ',', or it would become two tags: 'a,b'"),
    ],
)
async def test_an_unreadable_filter_is_a_problem_that_says_where(
    world: World, parameter: str, text: str, position: int, sentence: str
) -> None:
    for path in ("images", "datasets/cats/images"):
        problem = assert_problem(await world.client.get(f"{P}/{path}", params={parameter: text}), 400, "invalid")
        assert problem["detail"] == f"{parameter}, character {position}: {sentence}"
        assert problem["position"] == position
        assert problem["errors"] == [{"pointer": f"/{parameter}", "message": problem["detail"]}]


async def test_an_unknown_sort_order_and_malformed_json_are_problems(world: World) -> None:
    problem = assert_problem(await world.client.get(f"{P}/images", params={"sort": "colour"}), 400, "invalid")
    assert "added, name, size, changed, tags and conf:TAG" in str(problem["detail"])
    problem = assert_problem(await world.client.get(f"{P}/images", params={"filter": '{"type":"tag"}'}), 400, "invalid")
    assert problem["detail"] == "filter.tag is required"
    assert_problem(await world.client.get(f"{P}/images", params={"filter": "x" * 5000}), 400, "invalid")


@pytest.mark.parametrize(
    ("body", "selection"),
    [
        ({"images": ["img_1"]}, TheseImages(ids=(ImageId("img_1"),))),
        ({"filter": "hat | cap"}, Matching(filter=parse_filter("hat | cap"))),
        ({"all": True}, AllImages()),
    ],
)
async def test_images_to_review_are_selected_in_one_of_three_ways(
    world: World, body: dict[str, object], selection: Selection
) -> None:
    world.catalog.command_results[ReviewImages] = lambda _: ReviewResult(id="ds_1", name="cats", images=3)
    response = await world.client.post(f"{P}/datasets/cats/reviewed", json={**body, "reviewed": False})
    assert response.status_code == 200, response.text
    assert response.json()["images"] == 3
    command = world.catalog.received_commands[-1].command
    assert command == ReviewImages(dataset="cats", selection=selection, reviewed=False)


@pytest.mark.parametrize(
    "body", [{}, {"images": []}, {"images": ["img_1"], "all": True}, {"filter": ""}, {"filter": "a", "images": ["x"]}]
)
async def test_a_selection_that_is_none_or_several_is_a_problem(world: World, body: dict[str, object]) -> None:
    assert_problem(await world.client.post(f"{P}/datasets/cats/reviewed", json=body), 400, "invalid")


async def test_many_images_are_edited_as_previewed(world: World) -> None:
    found = EditPreview(
        dataset_id=DatasetId("ds_1"),
        dataset="cats",
        as_of=7,
        selected=2,
        changed=1,
        unchanged=1,
        tags=(TagEffect(tag="hat", decision="asserted", images=1),),
        examples=(EditExample(image=ImageId("img_1"), asserted=("hat",)),),
        unchanged_examples=(ImageId("img_2"),),
    )
    world.catalog.query_results[PreviewEdit] = found
    body = {"filter": "cat", "add": ["hat"], "withdraw": ["cap"]}
    response = await world.client.post(f"{P}/datasets/cats/edits/preview", json=body)
    assert response.status_code == 200, response.text
    assert response.json()["examples"] == [{"image": "img_1", "asserted": ["hat"]}]
    selection = Matching(filter=parse_filter("cat"))
    asked = PreviewEdit(dataset="cats", selection=selection, add=("hat",), withdraw=("cap",))
    assert world.catalog.received_queries[-1] == asked

    world.catalog.command_results[EditMany] = lambda _: EditManyResult(id="ds_1", name="cats", images=1, selected=2)
    response = await world.client.post(f"{P}/datasets/cats/edits", json={**body, "as_of": 7})
    assert (response.status_code, response.json()["images"]) == (200, 1)
    command = world.catalog.received_commands[-1].command
    assert command == EditMany(dataset="cats", selection=selection, add=("hat",), withdraw=("cap",), as_of=7)
    too_many = {"all": True, "add": [f"tag_{number}" for number in range(101)]}
    assert_problem(await world.client.post(f"{P}/datasets/cats/edits", json=too_many), 400, "invalid")


async def test_a_tagging_run_takes_a_filter(world: World) -> None:
    world.catalog.command_results[RequestTagging] = lambda _: TaggingRunResult(id="run_1", status="pending")
    response = await world.client.post(f"{P}/tagging/runs", json={"dataset": "cats", "model": "demo", "filter": "-hat"})
    assert response.status_code == 202, response.text
    command = world.catalog.received_commands[-1].command
    assert command == RequestTagging(dataset="cats", model="demo", selection=Matching(filter=parse_filter("-hat")))


@pytest.mark.parametrize("path", ["datasets/cats/tags", "tags"])
async def test_tags_are_counted_among_filtered_images(world: World, path: str) -> None:
    world.catalog.query_results[ListTags] = Page(items=(TagCount(tag="hat", images=2),), total=1)
    response = await world.client.get(f"{P}/{path}", params={"filter": "-cap", "prefix": "h"})
    assert response.json()["items"] == [{"tag": "hat", "images": 2}]
    query = world.catalog.received_queries[-1]
    dataset = "cats" if path.startswith("datasets") else None
    assert query == ListTags(dataset=dataset, prefix="h", filter=parse_filter("-cap"))
    assert_problem(await world.client.get(f"{P}/{path}", params={"filter": "(cap"}), 400, "invalid")


@pytest.mark.parametrize(
    ("method", "address", "pointers", "detail"),
    [
        (
            "GET",
            "/datasets?limitt=1",
            ["/limitt"],
            "this route has no query parameter `limitt`; there are `cursor`, `limit`, `min_seq`",
        ),
        ("GET", "/datasets?limit=1&limit=2", ["/limit"], "the query parameter `limit` is given 2 times"),
        (
            "GET",
            "/version?a~b/c=1&a~b/c=2&verbose",
            ["/a~0b~1c", "/verbose"],
            "this route has no query parameter `a~b/c`; there are `min_seq`; "
            "this route has no query parameter `verbose`; there are `min_seq`",
        ),
        ("POST", "/jobs?dry_run=true", ["/dry_run"], "this route has no query parameter `dry_run`"),
        ("POST", "/jobs?min_seq=1", ["/min_seq"], "this route has no query parameter `min_seq`"),
        (
            "GET",
            "/images/01J8Z7Q4GBV8R6JQ0V7Z4E2N5K/file?orignal=1",
            ["/orignal"],
            "this route has no query parameter `orignal`; there are `min_seq`, `original`",
        ),
    ],
)
async def test_an_unknown_or_repeated_query_parameter_is_refused_before_anything_is_done(
    world: World, method: str, address: str, pointers: list[str], detail: str
) -> None:
    response = await world.client.request(method, f"{P}{address}", json={} if method == "POST" else None)
    problem = assert_problem(response, 400, "invalid")
    assert problem["detail"] == detail
    assert [one["pointer"] for one in problem["errors"]] == pointers  # type: ignore[attr-defined]


async def test_every_read_takes_the_sequence_of_a_write(world: World) -> None:
    for address in ("version", "tagging/models", "training/modes"):
        assert (await world.client.get(f"{P}/{address}", params={"min_seq": 5})).status_code == 200


async def test_addresses_of_the_page_may_have_more_behind_them(world: World) -> None:
    assert (await world.client.get("/", params={"from": "mail"})).status_code == 200


async def test_every_answer_has_the_headers_that_protect_browsers(world: World) -> None:
    data = "default-src 'none'; frame-ancestors 'none'; sandbox"
    answers = {
        "a list": await world.client.get(f"{P}/datasets"),
        "a problem": await world.client.get(f"{P}/nowhere"),
        "a refused host": await world.client.get(f"{P}/datasets", headers={"Host": "evil.example"}),
        "a file of the page": await world.client.get("/web/app.js"),
        "metrics": await world.client.get("/metrics"),
        "events as a stream": await world.client.get(f"{P}/events", headers={"Accept": "application/x-ndjson"}),
    }
    for what, answer in answers.items():
        assert answer.headers["x-content-type-options"] == "nosniff", what
        assert answer.headers["referrer-policy"] == "no-referrer", what
        assert answer.headers["x-frame-options"] == "DENY", what
        assert answer.headers["cross-origin-resource-policy"] == "same-origin", what
        policies = answer.headers.get_list("content-security-policy")
        assert len(policies) == 1, what
        assert (policies[0] == data) == (what != "a file of the page"), what
