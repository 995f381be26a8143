"""What people are told of a training and an import."""

import io

import pytest

from contracts.commands import ImportedFile
from contracts.ids import ImageId
from loratory.answers import Frame, Imported, Waiting
from loratory.client import TookTooLong
from loratory.following import Lines, Patience
from loratory.words import ENDS, of_frame, of_import, of_progress

ALONE = Waiting(why="no trainer connected since noon", code="no-worker")
QUEUED = Waiting(why="position 2", code="queued", position=2)


def imported(name: str, outcome: str, **more: str) -> ImportedFile:
    return ImportedFile(name=name, outcome=outcome, image=ImageId("i"), **more)  # type: ignore[arg-type]  # a literal


def test_progress_is_one_line_of_what_is_known() -> None:
    data = {"phase": "training", "current_step": 12, "total_steps": 400, "loss": 0.12345, "rate": 8.14, "eta": 47.7}
    assert of_progress(data) == "training  12/400  loss 0.1235  8.1 steps/s  48 s left"
    assert of_progress({"phase": "loading", "loss": None, "message": "base"}) == "loading  base"


def test_every_end_of_a_job_has_a_line() -> None:
    assert all(of_frame(Frame(type=end)) for end in ENDS)
    assert of_frame(Frame(type="job.failed", data={"reason": "no such base"})) == "failed: no such base"
    assert of_frame(Frame(type="presence")) is None


def test_an_import_is_told_by_its_counts_and_every_reason() -> None:
    files = (imported("a.png", "added"), imported("b.png", "refused", reason="truncated", detail="it ends too early"))
    told = of_import(Imported(files=files, captions=1, others=2, outside=3, unread=(("c.txt", "it is no UTF-8 text"),)))
    assert told == [
        "1 pictures imported, 0 there already, 1 refused, 1 captions read, 2 other files passed over, "
        "3 links out of the folder not followed",
        "  refused b.png: it ends too early",
        "  c.txt: it is no UTF-8 text",
    ]


def test_patience_ends_when_nobody_was_there_for_all_of_its_time() -> None:
    said: list[str] = []
    patience = Patience(60, said.append)
    for second in range(61):
        patience.look(ALONE, float(second))
    with pytest.raises(TookTooLong, match="waited for 60 s: no trainer connected since noon"):
        patience.look(ALONE, 61.0)
    assert said == ["waiting: no trainer connected since noon"]


def test_patience_begins_anew_with_each_worker_that_comes() -> None:
    patience = Patience(60, lambda _line: None)
    for second in range(0, 600, 50):
        patience.look(ALONE if second % 100 else QUEUED, float(second))


def test_a_reason_that_passes_within_a_second_is_not_worth_a_line() -> None:
    said: list[str] = []
    patience = Patience(None, said.append)
    for now, waiting in ((0.0, QUEUED), (0.9, ALONE), (1.5, QUEUED), (2.5, QUEUED), (9.0, QUEUED)):
        patience.look(waiting, now)
    assert said == ["waiting: position 2"]


def test_progress_in_a_log_is_not_said_twice() -> None:
    out = io.StringIO()
    lines = Lines(out)
    for _ in range(3):
        lines.progress("training  1/2")
    lines.say("done")
    assert out.getvalue() == "training  1/2\ndone\n"
