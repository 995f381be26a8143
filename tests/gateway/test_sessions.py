"""Sessions end with logout, with their time and with the key, and survive the gateway."""

from pathlib import Path

import pytest

from contracts.errors import Unavailable
from gateway.http.sessions import SESSION_SECONDS, Sessions

KEY = "a-key-of-sixteen-characters"


def test_a_session_is_open_until_it_is_closed_also_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "run" / "sessions.json"
    one = Sessions(file, KEY)
    first, second = one.open(), one.open()
    assert first != second
    restarted = Sessions(file, KEY)
    assert restarted.is_open(first) and restarted.is_open(second)
    restarted.close(first)
    assert [sessions.is_open(first) for sessions in (one, restarted, Sessions(file, KEY))] == [False] * 3
    assert one.is_open(second)
    assert file.stat().st_mode & 0o077 == 0


def test_what_is_no_session_is_not_open_and_closing_it_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "sessions.json"
    sessions = Sessions(file, KEY)
    assert not sessions.is_open("")
    cookie = sessions.open()
    session, ends, signature = cookie.split(".")
    before = file.read_bytes()
    for forged in (
        "",
        "..",
        "a.b.c",
        f"{session}.{int(ends) + 1}.{signature}",
        f"{session}.{ends}.",
        cookie[:-1],
        "é.1.é",
    ):
        assert not sessions.is_open(forged)
        sessions.close(forged)
    assert file.read_bytes() == before
    assert sessions.is_open(cookie)


def test_a_session_ends_with_its_time_and_closed_ones_are_forgotten_then(tmp_path: Path) -> None:
    now = [1_000_000.0]
    file = tmp_path / "sessions.json"
    sessions = Sessions(file, KEY, lambda: now[0])
    closed, other = sessions.open(), sessions.open()
    sessions.close(closed)
    now[0] += SESSION_SECONDS
    assert not sessions.is_open(other)
    later = sessions.open()
    sessions.close(later)
    assert not sessions.is_open(closed)
    assert closed.split(".")[0] not in file.read_text()


def test_another_key_a_lost_file_and_a_damaged_one_end_all_sessions(tmp_path: Path) -> None:
    file = tmp_path / "sessions.json"
    cookie = Sessions(file, KEY).open()
    assert not Sessions(file, f"{KEY}!").is_open(cookie)
    assert Sessions(file, KEY).is_open(cookie)
    for damage in (lambda: file.write_bytes(b"{"), file.unlink):
        sessions = Sessions(file, KEY)
        damage()
        assert not sessions.is_open(cookie)
        cookie = sessions.open()
        assert sessions.is_open(cookie)


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(Unavailable, match="sessions cannot be stored"):
        Sessions(tmp_path / "run" / "sessions.json", KEY).open()
