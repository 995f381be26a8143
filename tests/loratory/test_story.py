"""The log, read by client and command line: filtered, followed, told as stories, replayed, and things as they were."""

import asyncio
import json
from contextlib import aclosing
from itertools import count
from pathlib import Path

import httpx
import pytest

from contracts.errors import Invalid, NotFound, Rejected
from contracts.queries import ImageView
from loratory import AsyncClient, Client, story
from loratory.answers import Event
from tests.limits import WAIT
from tests.loratory.conftest import Cli

NAMES = (f"story {number}" for number in count())


@pytest.fixture
def edited(workshop: str, pictures: Path) -> tuple[str, ImageView]:
    """A data set, and an image of it whose tags were edited since."""
    name = next(NAMES)
    with Client(workshop) as client:
        client.create_dataset(name)
        client.import_folder(name, pictures)
        image = client.images(name)[0]
    for change in ({"add": ["red", "square"]}, {"add": ["flat"], "remove": ["square"]}):
        httpx.patch(f"{workshop}/api/v1/images/{image.id}/tags", json=change).raise_for_status()
    return name, image


def test_things_are_shown_as_they_were(workshop: str, edited: tuple[str, ImageView]) -> None:
    name, before = edited
    with Client(workshop) as client:
        after = client.image(before.id)
        assert [tag.tag for tag in after.tags] == ["red", "flat"]
        assert client.image(before.id, at_seq=before.etag) == before
        assert client.image(before.id, at_seq=after.etag) == after
        made = next(event for event in client.events(thing=after.dataset_id) if event.type == "dataset.created")
        born = client.dataset(name, at_seq=made.sequence)
        assert (born.images, client.dataset(name).images) == (0, 3)
        assert client.dataset(name, at_time=made.recorded) == born
        with pytest.raises(NotFound):
            client.dataset(name, at_seq=made.sequence - 1)
        with pytest.raises(Rejected):
            client.image(before.id, at_seq=10**9)
        with pytest.raises(Invalid):
            client.image(before.id, at_seq=1, at_time=made.recorded)


def test_stories_are_told_whole_however_they_are_cut(
    workshop: str, edited: tuple[str, ImageView], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, image = edited
    with Client(workshop) as client:
        of_image = list(client.image_history(image.id))
        of_tag = list(client.dataset_history(name, tag="square"))
        monkeypatch.setattr(story, "PAGE", 1)
        assert list(client.image_history(image.id)) == of_image
    assert [one.type for one in of_image] == ["dataset.image_added", "dataset.tags_edited", "dataset.tags_edited"]
    assert [one.words for one in of_tag] == ["a person added square on 1 image", "a person rejected square on 1 image"]
    assert {one.actor for one in of_tag} == {"user:local"}


def test_events_are_narrowed_by_family_actor_and_time(workshop: str, edited: tuple[str, ImageView]) -> None:
    dataset = edited[1].dataset_id
    with Client(workshop) as client:
        mine = list(client.events(thing=dataset))
        assert list(client.events(kind="dataset", thing=dataset, type="dataset.*", actor="user:*")) == mine
        assert list(client.events(thing=dataset, actor="svc:*")) == []
        last = mine[-1].recorded
        assert {event.recorded for event in client.events(thing=dataset, since=last)} == {last}
        assert [e.cursor for e in client.events(thing=dataset, until=last)] == [
            e.cursor for e in mine if e.recorded < last
        ]


def test_who_follows_hears_what_comes_and_no_more_than_that(workshop: str) -> None:
    async def walk() -> None:
        async with AsyncClient(workshop) as client, asyncio.timeout(WAIT):
            story_so_far = [event.cursor async for event in client.events()]
            async with aclosing(client.events(after=story_so_far[-1], kind="dataset", follow=True)) as following:
                heard: list[Event] = []
                for _ in range(2):
                    made = await client.create_dataset(next(NAMES))
                    heard.append(await anext(following))
                    assert heard[-1].thing == made.id
            rest = [event async for event in client.events(after=story_so_far[-1], kind="dataset")]
            assert heard == rest

    asyncio.run(walk())


def test_what_is_shown_follows_from_the_log(workshop: str, edited: tuple[str, ImageView]) -> None:
    with Client(workshop) as client:
        report = client.audit_replay()
    assert (report.state, report.difference) == ("same", None)
    assert report.rows["image"] >= 3


# --- on the command line


def test_a_story_is_a_line_for_each_fact(cli: Cli, edited: tuple[str, ImageView]) -> None:
    name, image = edited
    assert cli("history", "image", image.id) == 0
    assert cli.out.splitlines()[-1].endswith("user:local  a person added flat and rejected square on 1 image")
    assert cli("history", "tag", name, "flat", "--json") == 0
    (only,) = [json.loads(line) for line in cli.out.splitlines()]
    assert only["change"]["asserted"] == ["flat"]
    assert cli("history", "dataset", name) == 0
    assert "the data set" in cli.out.splitlines()[0]
    assert cli("history", "job", "job_of_nobody") == 1
    assert cli.err.count("\n") == 1


def test_things_are_shown_as_they_were_on_request(cli: Cli, edited: tuple[str, ImageView]) -> None:
    name, image = edited
    assert cli("images", "show", image.id) == 0
    assert "tags\tred, flat" in cli.out
    assert cli("images", "show", image.id, "--at-seq", str(image.etag), "--json") == 0
    assert json.loads(cli.out)["tags"] == []
    assert cli("datasets", "show", name, "--at-seq", "1") == 1
    assert "at sequence 1" in cli.err
    assert cli("datasets", "show", name, "--at-time", "yesterday") == 2
    assert cli("jobs", "show", "job_of_nobody", "--at-seq", "1") == 1


def test_events_are_narrowed_on_request(cli: Cli, edited: tuple[str, ImageView]) -> None:
    dataset = edited[1].dataset_id
    assert cli("events", "--thing", dataset, "--type", "dataset.tags_*") == 0
    lines = [json.loads(line) for line in cli.out.splitlines()]
    assert {line["type"] for line in lines} == {"dataset.tags_edited"}
    assert cli("events", "--thing", dataset, "--actor", "nobody") == 0
    assert cli.out == ""
    assert cli("events", "--thing", dataset, "--from", lines[-1]["recorded"]) == 0
    assert [json.loads(line)["cursor"] for line in cli.out.splitlines()] == [lines[-1]["cursor"]]
    assert cli("events", "--kind", "picture") == 2


def test_a_replay_says_that_all_is_alike(cli: Cli, edited: tuple[str, ImageView]) -> None:
    assert cli("audit", "replay") == 0
    assert "are what" in cli.out
    assert cli("audit", "replay", "--json") == 0
    assert json.loads(cli.out)["state"] == "same"
