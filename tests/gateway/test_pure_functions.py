"""Pure functions of the gateway: cursors, page links, wait reasons, timeouts; checksums of the vendored Swagger UI."""

import hashlib
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Gone, Invalid
from contracts.filter_text import parse_filter, parse_sort
from contracts.filters import AllImages, Matching
from contracts.ids import ImageId, WorkerId
from contracts.queries.base import Query
from contracts.queries.datasets import GetImage, ListImages, ListTags, PreviewEdit
from contracts.telemetry import Presence, TrainingProgress
from gateway.clients import QUERY_TIMEOUT_SECONDS, SLOW_QUERY_TIMEOUT_SECONDS, timeout_of
from gateway.cursor import CURSOR, END_OF_COMMIT, START, LogPosition, Received, decode_cursor, encode_cursor
from gateway.http.responses import next_link
from gateway.live.encoding import positions_after
from gateway.live_views import explain_wait, job_progress
from gateway.routes.pages import WEB
from tests.gateway.fake_catalog import job

AT = datetime(2026, 1, 2, tzinfo=UTC)
POSITIONS = st.builds(LogPosition, st.integers(0, 2**53), st.one_of(st.integers(0, 500), st.just(END_OF_COMMIT)))


AGGREGATES = st.sampled_from([("dataset", "ds_1"), ("dataset", "ds_2"), ("tagging", "run_1"), ("job", "job_1")])


@st.composite
def received(draw: st.DrawFn) -> Received:
    position = draw(POSITIONS)
    late = draw(st.dictionaries(AGGREGATES, POSITIONS, max_size=3))
    return Received(position, {one: reached for one, reached in late.items() if reached < position})


@given(received(), st.none() | POSITIONS)
def test_decoding_an_encoded_cursor_returns_what_was_received(one: Received, last: LogPosition | None) -> None:
    cursor = encode_cursor("L", one, last)
    assert decode_cursor(cursor, "L") == one
    assert cursor.endswith(f".{(last or one.position).sequence}")


@given(received(), received(), AGGREGATES, POSITIONS)
def test_received_positions_are_sets_of_events(a: Received, b: Received, of: tuple[str, str], at: LogPosition) -> None:
    joined = a.joined(b)
    assert joined.includes(of, at) == (a.includes(of, at) or b.includes(of, at))
    assert joined.covers(a)
    assert joined.covers(b)
    assert a.covers(b) == (joined == a)
    assert a.until(at).includes(of, at) == a.includes(of, at)
    assert a.includes(of, a.complete)


@given(st.text(max_size=30) | st.from_regex(CURSOR, fullmatch=True))
def test_any_text_is_decoded_or_rejected_as_a_cursor(text: str) -> None:
    try:
        assert decode_cursor(text, "L").position >= LogPosition(0, 0)
    except (Invalid, Gone):
        assert text not in ("", "0")


def test_positions_compare_in_log_order() -> None:
    assert START < LogPosition(1, 0) < LogPosition(1, 1) < LogPosition(1) < LogPosition(2, 0)
    assert (LogPosition(5).query_after, LogPosition(5, 2).query_after) == (5, 4)
    assert positions_after(()) == []


def test_the_last_page_has_no_next_link() -> None:
    assert next_link(None, None, "cursor") == {}  # type: ignore[arg-type]  # without a next cursor the request is not used


@pytest.mark.parametrize("changes", [{"status": "running"}, {"phase": "draft"}, {"status": "completed"}])
def test_a_job_that_does_not_wait_has_no_wait_reason(changes: dict[str, str]) -> None:
    assert explain_wait(job(**changes), [], AT) is None


def test_with_one_ready_trainer_a_job_waits_in_the_queue() -> None:
    workers = [
        Presence(service="trainer", worker=WorkerId("w1"), state="starting", at=AT),
        Presence(service="trainer", worker=WorkerId("w2"), state="busy", at=AT),
    ]
    reason = explain_wait(job(position=3), workers, None)
    assert reason is not None
    assert (reason.code, reason.why, reason.position) == ("queued", "position 3", 3)


def test_a_job_whose_data_set_is_being_frozen_waits_for_that_and_for_no_trainer() -> None:
    reason = explain_wait(job(phase="freezing", position=None, version=None), [], AT)
    assert reason is not None
    assert (reason.code, reason.why, reason.position) == ("freezing", "the data set is being frozen", None)


@pytest.mark.parametrize(
    ("changes", "live", "expected"),
    [
        ({"status": "pending", "step": 0, "steps": None}, None, (0.0, 0, None)),
        ({"status": "running", "step": 40, "steps": 300}, 100, (33.33, 100, 300)),
        ({"status": "running", "step": 120, "steps": 300}, 100, (40.0, 120, 300)),  # a new attempt starts further back
        ({"status": "cancelled", "step": 150, "steps": 300}, None, (50.0, 150, 300)),
        ({"status": "completed", "step": 300, "steps": 300}, None, (100.0, 300, 300)),
    ],
)
def test_progress_in_percent(
    changes: dict[str, Any], live: int | None, expected: tuple[float, int, int | None]
) -> None:
    view = job(**changes)
    progress = TrainingProgress(job_id=view.id, attempt=1, phase="training", at=AT, step=live) if live else None
    assert job_progress(view, progress) == (*expected, view.ended_at)


def test_vendored_swagger_ui_matches_its_checksums() -> None:
    folder = WEB / "vendor" / "swagger"
    rows = re.findall(r"^([0-9a-f]{64})  (\S+)$", (folder / "VENDOR.md").read_text(), re.MULTILINE)
    assert {name for _, name in rows} == {file.name for file in folder.iterdir()} - {"VENDOR.md"}
    for digest, name in rows:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(
    "query",
    [
        GetImage(image=ImageId("img_1"), at_seq=3),
        ListImages(dataset="cats", at_seq=3),
        ListImages(dataset="cats", sort=parse_sort("-name")),
        ListImages(dataset="cats", filter=parse_filter('hat -(cap | caption:"red")')),
        ListTags(dataset="cats", filter=parse_filter('name:"a"')),
        PreviewEdit(dataset="cats", selection=Matching(filter=parse_filter('name:"a"'))),
    ],
)
def test_queries_that_read_much_first_have_more_time(query: Query[Any]) -> None:
    assert timeout_of(query) == SLOW_QUERY_TIMEOUT_SECONDS


@pytest.mark.parametrize(
    "query",
    [
        GetImage(image=ImageId("img_1")),
        ListImages(dataset="cats", filter=parse_filter("hat -cap"), sort=parse_sort("-size")),
        ListTags(dataset="cats", prefix="a"),
        PreviewEdit(dataset="cats", selection=AllImages()),
    ],
)
def test_other_queries_fail_soon_without_an_answer(query: Query[Any]) -> None:
    assert timeout_of(query) == QUERY_TIMEOUT_SECONDS
