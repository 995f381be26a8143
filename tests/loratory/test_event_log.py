"""Reading the event log with client and command line: filters, following, histories, replays and past states."""

import asyncio
import json
from contextlib import aclosing
from itertools import count
from pathlib import Path

import httpx
import pytest

from contracts.errors import Invalid, NotFound, Rejected
from contracts.queries.datasets import ImageView
from loratory import AsyncClient, Client
from loratory.responses import LoggedEvent
from tests.limits import WAIT
from tests.loratory.conftest import Cli

NAMES = (f"log {number}" for number in count())


@pytest.fixture
def edited(server_url: str, image_folder: Path) -> tuple[str, ImageView]:
    """A data set, and one of its images as it was before two edits of its tags."""
    name = next(NAMES)
    with Client(server_url) as client:
        client.create_dataset(name)
        client.import_folder(name, image_folder)
        image = client.images(name)[0]
    for change in ({"add": ["red", "square"]}, {"add": ["flat"], "remove": ["square"]}):
        httpx.patch(f"{server_url}/api/v1/images/{image.id}/tags", json=change).raise_for_status()
    return name, image


def test_past_states_are_returned(server_url: str, edited: tuple[str, ImageView]) -> None:
    name, before = edited
    with Client(server_url) as client:
        after = client.image(before.id)
        assert [tag.tag for tag in after.tags] == ["red", "flat"]
        assert client.image(before.id, at_seq=before.etag) == before
        assert client.image(before.id, at_seq=after.etag) == after
        made = next(event for event in client.events(aggregate_id=after.dataset_id) if event.type == "dataset.created")
        born = client.dataset(name, at_seq=made.sequence)
        assert (born.images, client.dataset(name).images) == (0, 3)
        assert client.dataset(name, at_time=made.recorded_at) == born
        with pytest.raises(NotFound):
            client.dataset(name, at_seq=made.sequence - 1)
        with pytest.raises(Rejected):
            client.image(before.id, at_seq=10**9)
        with pytest.raises(Invalid):
            client.image(before.id, at_seq=1, at_time=made.recorded_at)


def test_histories_are_complete_for_any_page_size(server_url: str, edited: tuple[str, ImageView]) -> None:
    name, image = edited
    with Client(server_url) as client, Client(server_url, page_size=1) as page_by_page:
        of_image = list(client.image_history(image.id))
        of_tag = list(client.dataset_history(name, tag="square"))
        assert list(page_by_page.image_history(image.id)) == of_image
    assert [one.type for one in of_image] == ["dataset.image_added", "dataset.tags_edited", "dataset.tags_edited"]
    assert [one.description for one in of_tag] == [
        "Added tag square to 1 image",
        "Rejected tag square on 1 image",
    ]
    assert {one.actor for one in of_tag} == {"user:local"}


def test_events_are_filtered_by_type_actor_and_time(server_url: str, edited: tuple[str, ImageView]) -> None:
    dataset = edited[1].dataset_id
    with Client(server_url) as client:
        mine = list(client.events(aggregate_id=dataset))
        assert (
            list(client.events(aggregate_kind="dataset", aggregate_id=dataset, type="dataset.*", actor="user:*"))
            == mine
        )
        assert list(client.events(aggregate_id=dataset, actor="svc:*")) == []
        last = mine[-1].recorded_at
        assert {event.recorded_at for event in client.events(aggregate_id=dataset, since=last)} == {last}
        assert [e.cursor for e in client.events(aggregate_id=dataset, until=last)] == [
            e.cursor for e in mine if e.recorded_at < last
        ]


def test_following_yields_new_events_and_nothing_else(server_url: str) -> None:
    async def walk() -> None:
        async with AsyncClient(server_url) as client, asyncio.timeout(WAIT):
            cursors = [event.cursor async for event in client.events()]
            async with aclosing(client.events(after=cursors[-1], aggregate_kind="dataset", follow=True)) as following:
                received: list[LoggedEvent] = []
                for _ in range(2):
                    made = await client.create_dataset(next(NAMES))
                    received.append(await anext(following))
                    assert received[-1].aggregate_id == made.id
            rest = [event async for event in client.events(after=cursors[-1], aggregate_kind="dataset")]
            assert received == rest

    asyncio.run(walk())


def test_the_read_models_match_the_log(server_url: str, edited: tuple[str, ImageView]) -> None:
    with Client(server_url) as client:
        report = client.audit_replay()
    assert (report.state, report.difference) == ("same", None)
    assert report.rows["image"] >= 3


# --- on the command line


def test_a_history_has_a_line_for_each_event(cli: Cli, edited: tuple[str, ImageView]) -> None:
    name, image = edited
    assert cli("history", "image", image.id) == 0
    assert cli.out.splitlines()[-1].endswith("user:local  Added tag flat and rejected tag square on 1 image")
    assert cli("history", "tag", name, "flat", "--json") == 0
    (only,) = [json.loads(line) for line in cli.out.splitlines()]
    assert only["change"]["asserted"] == ["flat"]
    assert cli("history", "dataset", name) == 0
    assert "Created data set" in cli.out.splitlines()[0]
    assert cli("history", "job", "job_of_nobody") == 1
    assert cli.err.count("\n") == 1


def test_past_states_are_shown_on_request(cli: Cli, edited: tuple[str, ImageView]) -> None:
    name, image = edited
    assert cli("images", "show", image.id) == 0
    assert "  Tags:           red, flat\n" in cli.out
    assert cli("images", "show", image.id, "--at-seq", str(image.etag), "--json") == 0
    assert json.loads(cli.out)["tags"] == []
    assert cli("datasets", "show", name, "--at-seq", "1") == 1
    assert "at sequence 1" in cli.err
    assert cli("datasets", "show", name, "--at-time", "yesterday") == 2
    assert cli("jobs", "show", "job_of_nobody", "--at-seq", "1") == 1


def test_events_are_filtered_on_request(cli: Cli, edited: tuple[str, ImageView]) -> None:
    dataset = edited[1].dataset_id
    assert cli("events", "--aggregate", dataset, "--type", "dataset.tags_*", "--json") == 0
    lines = [json.loads(line) for line in cli.out.splitlines()]
    assert {line["type"] for line in lines} == {"dataset.tags_edited"}
    assert cli("events", "--aggregate", dataset, "--actor", "nobody") == 0
    assert cli.out == ""
    assert cli("events", "--aggregate", dataset, "--from", lines[-1]["recorded_at"], "--json") == 0
    assert [json.loads(line)["cursor"] for line in cli.out.splitlines()] == [lines[-1]["cursor"]]
    assert cli("events", "--kind", "picture") == 2


@pytest.mark.slow
def test_a_replay_reports_that_all_rows_match(cli: Cli, edited: tuple[str, ImageView]) -> None:
    assert cli("audit", "replay") == 0
    assert "match what" in cli.out
    assert cli("audit", "replay", "--json") == 0
    assert json.loads(cli.out)["state"] == "same"
