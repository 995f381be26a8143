"""Every GET of the OpenAPI document, for every id there is: what a workshop answers, to be compared.

`python -m tests.acceptance.crawl URL --save FILE` keeps all answers; `--compare FILE` crawls again and names what is
answered otherwise, but for the live fields of `gateway.http.live_fields`. Exit code 1 when something is.
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

from gateway.http.live_fields import LIVE_FIELDS

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
"""Which members of the list above it name a thing. A route that needs another stops the crawl."""
VARIANTS: dict[str, tuple[str, ...]] = {
    "/api/v1/images/{image}/file": ("?original=1",),
    "/api/v1/datasets/{dataset}/images": ("?tag=momo",),
    "/api/v1/jobs": ("?status=completed",),
    "/api/v1/events": ("?kind=job", "?type=dataset.image_added"),
}
SMALL = 5
"""Lists are also read in pieces of so many, for the cursors."""
MOST_PAGES = 200
_GAP = re.compile(r"\{(\w+)\}")


class Answer(msgspec.Struct, frozen=True):
    """`route` as in the OpenAPI document."""

    route: str
    address: str
    status: int
    etag: str
    kind: str
    body: bytes


def crawl(http: httpx.Client) -> dict[str, Answer]:
    """All answers by address."""
    paths: dict[str, dict[str, Any]] = http.get("/openapi.json").raise_for_status().json()["paths"]
    found: dict[str, Answer] = {}
    for route, operations in paths.items():
        if "get" not in operations:
            continue
        pieces = any(parameter["name"] == "limit" for parameter in operations["get"].get("parameters", ()))
        for address in _addresses(http, route):
            for start in ("", *((f"?limit={SMALL}",) if pieces else ()), *VARIANTS.get(route, ())):
                found |= {answer.address: answer for answer in _pages(http, route, address + start)}
    return found


def _addresses(http: httpx.Client, route: str) -> Iterator[str]:
    """The route with its gaps filled in every way there is."""
    last = next((part for part in sorted(IDS, key=len, reverse=True) if f"{route}/".startswith(f"{part}/")), None)
    rest = route.removeprefix(last or "")
    if gaps := _GAP.search(rest):
        raise LookupError(f"nobody told the crawl where the ids of {route} are: {gaps[0]}")
    if last is None:
        yield route
        return
    above = re.sub(r"(/\{\w+\})+$", "", last)
    for place in _addresses(http, above):
        for item in _items(http, place):
            yield place + "".join(f"/{quote(str(item[name]), safe='')}" for name in IDS[last]) + rest


def _items(http: httpx.Client, address: str) -> Iterator[Mapping[str, Any]]:
    for answer in _pages(http, address, address):
        body = msgspec.json.decode(answer.body)
        yield from body["items"] if isinstance(body, dict) else body


def _pages(http: httpx.Client, route: str, address: str) -> Iterator[Answer]:
    """The answer, and those its `Link: …; rel="next"` leads to."""
    for _ in range(MOST_PAGES):
        answer = http.get(address)
        kind = answer.headers.get("content-type", "")
        yield Answer(route, address, answer.status_code, answer.headers.get("etag", ""), kind, answer.content)
        following = answer.links.get("next")
        if following is None:
            return
        address = str(httpx.URL(following["url"]).raw_path, "ascii")
    raise RuntimeError(f"{address} has more than {MOST_PAGES} pages")


def differences(before: Mapping[str, Answer], after: Mapping[str, Answer]) -> list[str]:
    """What is answered otherwise, one line each; live fields may be."""
    told = [
        f"{address}: answered only {'before' if address in before else 'after'}" for address in {*before} ^ {*after}
    ]
    for address in sorted({*before} & {*after}):
        one, other = before[address], after[address]
        if (one.status, one.etag, one.kind) != (other.status, other.etag, other.kind):
            told.append(f"{address}: {one.status} {one.etag} {one.kind} → {other.status} {other.etag} {other.kind}")
        elif (was := _lasting(one)) != (now := _lasting(other)):
            told.append(f"{address}: {was[:600]!r} → {now[:600]!r}")
    return told


def _lasting(answer: Answer) -> bytes:
    """The body without what is true only now; the very bytes where all of it lasts."""
    live = LIVE_FIELDS.get(answer.route)
    if live is None:
        return answer.body
    if "" in live:
        return b""
    body = msgspec.json.decode(answer.body)
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
    asked = parser.parse_args(arguments)
    with httpx.Client(base_url=asked.url, timeout=90) as http:
        found = crawl(http)
    if asked.save:
        asked.save.write_bytes(msgspec.json.encode(found))
        sys.stdout.write(f"{len(found)} answers kept in {asked.save}\n")
        return 0
    told = differences(msgspec.json.decode(asked.compare.read_bytes(), type=dict[str, Answer]), found)
    sys.stdout.writelines(f"{line}\n" for line in islice(told, 100))
    sys.stdout.write(f"{len(found)} answers, {len(told)} differences\n")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
