"""Crawls every GET route of the OpenAPI document for every existing id, to compare the responses of two states.

`python -m tests.acceptance.crawl URL --save FILE` saves all responses; `--compare FILE` crawls again and reports those
that differ, except in the live fields of `tests.live_fields`. Exit code 1 if there are differences.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from tests.live_fields import LIVE_FIELDS

IDS: dict[str, tuple[str, ...]] = {
    "/api/v1/datasets/{dataset}": ("id",),
    "/api/v1/datasets/{dataset}/versions/{version}": ("version",),
    "/api/v1/tagging/runs/{run}": ("id",),
    "/api/v1/presets/{name}": ("name",),
    "/api/v1/jobs/{job}": ("id",),
    "/api/v1/jobs/{job}/samples/{step}/{index}": ("step", "index"),
    "/api/v1/jobs/{job}/artifacts/{name}": ("name",),
    "/api/v1/images/{image}": ("id",),
    "/api/images/{image}": ("id",),
}
"""Which fields of a list's items fill in the path parameters of each route. A route that is missing stops the crawl."""
SMALL_PAGE = 5
"""Lists are also read in pages of this size, to test the cursors."""
VARIANTS: dict[str, tuple[str, ...]] = {
    "/api/v1/images/{image}/file": ("?original=1",),
    "/api/v1/datasets/{dataset}/images": ("?tag=momo",),
    "/api/v1/datasets/{dataset}/versions/{version}/diff": ("?from=1", f"?from=1&limit={SMALL_PAGE}"),
    "/api/v1/jobs": ("?status=completed",),
    "/api/v1/events": ("?aggregate_kind=job", "?type=dataset.image_added"),
}
PROBLEM = "application/problem+json"
"""Of an image without a mask, say."""
MAX_PAGES = 200
_PATH_PARAMETER = re.compile(r"\{(\w+)\}")


class SavedResponse(msgspec.Struct, frozen=True):
    """`route` as in the OpenAPI document."""

    route: str
    address: str
    status: int
    etag: str
    media_type: str
    body: bytes


def crawl(http: httpx.Client) -> dict[str, SavedResponse]:
    """All responses by address."""
    paths: dict[str, dict[str, Any]] = http.get("/openapi.json").raise_for_status().json()["paths"]
    found: dict[str, SavedResponse] = {}
    for route, operations in paths.items():
        if "get" not in operations:
            continue
        parameters = operations["get"].get("parameters", ())
        is_paged = any(parameter["name"] == "limit" for parameter in parameters)
        plain = ("", *((f"?limit={SMALL_PAGE}",) if is_paged else ()))
        if any(parameter["in"] == "query" and parameter.get("required") for parameter in parameters):
            plain = ()
        for address in _addresses(http, route):
            for query in (*plain, *VARIANTS.get(route, ())):
                found |= {page.address: page for page in _pages(http, route, address + query)}
    return found


def _addresses(http: httpx.Client, route: str) -> Iterator[str]:
    """The route with its path parameters filled in with all existing ids."""
    prefix = next((part for part in sorted(IDS, key=len, reverse=True) if f"{route}/".startswith(f"{part}/")), None)
    rest = route.removeprefix(prefix or "")
    if parameter := _PATH_PARAMETER.search(rest):
        raise LookupError(f"IDS does not say where the ids of {route} come from: {parameter[0]}")
    if prefix is None:
        yield route
        return
    list_route = re.sub(r"(/\{\w+\})+$", "", prefix)
    for address in _addresses(http, list_route):
        for item in _items(http, address):
            yield address + "".join(f"/{quote(str(item[name]), safe='')}" for name in IDS[prefix]) + rest


def _items(http: httpx.Client, address: str) -> Iterator[Mapping[str, Any]]:
    for page in _pages(http, address, address):
        body = msgspec.json.decode(page.body)
        yield from body["items"] if isinstance(body, dict) else body


def _pages(http: httpx.Client, route: str, address: str) -> Iterator[SavedResponse]:
    """The response, and the following pages according to its `Link: …; rel="next"`."""
    for _ in range(MAX_PAGES):
        response = http.get(address)
        etag, media_type = response.headers.get("etag", ""), response.headers.get("content-type", "")
        yield SavedResponse(route, address, response.status_code, etag, media_type, response.content)
        next_page = response.links.get("next")
        if next_page is None:
            return
        address = str(httpx.URL(next_page["url"]).raw_path, "ascii")
    raise RuntimeError(f"{address} has more than {MAX_PAGES} pages")


def compare(before: Mapping[str, SavedResponse], after: Mapping[str, SavedResponse]) -> list[str]:
    """One line for each response that differs; live fields are ignored."""
    differences = [
        f"{address}: exists only {'before' if address in before else 'after'}" for address in {*before} ^ {*after}
    ]
    for address in sorted({*before} & {*after}):
        one, other = before[address], after[address]
        old, new = (one.status, one.etag, one.media_type), (other.status, other.etag, other.media_type)
        if old != new:
            differences.append(f"{address}: {' '.join(map(str, old))} → {' '.join(map(str, new))}")
        elif (was := _without_live_fields(one)) != (now := _without_live_fields(other)):
            differences.append(f"{address}: {was[:600]!r} → {now[:600]!r}")
    return differences


def _without_live_fields(response: SavedResponse) -> bytes:
    """The body without fields that depend on the moment; the unchanged bytes if it has none."""
    live = ["/request_id"] if response.media_type == PROBLEM else LIVE_FIELDS.get(response.route)
    if live is None:
        return response.body
    if "" in live:
        return b""
    body = msgspec.json.decode(response.body)
    for pointer in live:
        _remove(body, pointer.split("/")[1:])
    return msgspec.json.encode(body)


def _remove(body: Any, steps: Sequence[str]) -> None:
    step, *rest = steps
    if step == "*":
        for item in body:
            _remove(item, rest)
    elif rest:
        _remove(body[step], rest)
    else:
        body.pop(step, None)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.crawl")
    parser.add_argument("url")
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--save", type=Path)
    choice.add_argument("--compare", type=Path)
    options = parser.parse_args(arguments)
    with httpx.Client(base_url=options.url, timeout=90) as http:
        found = crawl(http)
    if options.save:
        options.save.write_bytes(msgspec.json.encode(found))
        sys.stdout.write(f"{len(found)} responses saved in {options.save}\n")
        return 0
    saved = msgspec.json.decode(options.compare.read_bytes(), type=dict[str, SavedResponse])
    differences = compare(saved, found)
    sys.stdout.writelines(f"{line}\n" for line in islice(differences, 100))
    sys.stdout.write(f"{len(found)} responses, {len(differences)} differences\n")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
