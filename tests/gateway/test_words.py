"""What is pure: cursors, frames, and why something waits."""

import hashlib
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Gone, Invalid
from contracts.telemetry import Presence
from gateway.cursor import START, WHOLE, Place, cursor_of, place_of
from gateway.frames import places
from gateway.http.answers import link_to
from gateway.routes.pages import WEB
from gateway.waiting import waiting
from tests.gateway.stand_in import job

AT = datetime(2026, 1, 2, tzinfo=UTC)
PLACES = st.builds(Place, st.integers(0, 2**53), st.one_of(st.integers(0, 500), st.just(WHOLE)))


@given(PLACES)
def test_a_cursor_is_read_as_it_was_written(place: Place) -> None:
    assert place_of(cursor_of("L", place), "L") == place


@given(st.text(max_size=30))
def test_no_text_is_too_strange_for_a_cursor(text: str) -> None:
    try:
        assert place_of(text, "L") >= Place(0, 0)
    except (Invalid, Gone):
        assert text not in ("", "0")


def test_places_compare_in_the_order_of_the_log() -> None:
    assert START < Place(1, 0) < Place(1, 1) < Place(1) < Place(2, 0)
    assert (Place(5).ask_after, Place(5, 2).ask_after) == (5, 4)
    assert places(()) == []


def test_a_last_page_has_no_link() -> None:
    assert link_to(None, None, "cursor") == {}  # type: ignore[arg-type]  # what follows nothing asks for nothing


@pytest.mark.parametrize("changes", [{"status": "running"}, {"phase": "draft"}, {"status": "completed"}])
def test_what_does_not_wait_has_no_reason(changes: dict[str, str]) -> None:
    assert waiting(job(**changes), [], AT) is None


def test_one_ready_trainer_is_enough_to_be_in_the_queue() -> None:
    here = [Presence(service="trainer", worker=f"w{state}", state=state, at=AT) for state in ("starting", "busy")]
    found = waiting(job(position=3), here, None)
    assert found is not None
    assert (found.code, found.why, found.position) == ("queued", "position 3", 3)


def test_swagger_ui_is_the_one_that_was_taken() -> None:
    folder = WEB / "vendor" / "swagger"
    rows = re.findall(r"^([0-9a-f]{64})  (\S+)$", (folder / "VENDOR.md").read_text(), re.MULTILINE)
    assert {name for _, name in rows} == {file.name for file in folder.iterdir()} - {"VENDOR.md"}
    for digest, name in rows:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
