"""The lines printed about trainings and imports."""

import io

import pytest

from contracts.commands.datasets import ImportedFile
from contracts.ids import ImageId
from loratory.api.base import WaitTimeout
from loratory.api.work import TERMINAL_EVENTS
from loratory.follow import EXIT_CODES, ProgressWriter, WorkerWait, describe_frame, format_import, format_progress
from loratory.responses import Frame, ImportSummary, WaitReason

NO_WORKER = WaitReason(why="no trainer connected since noon", code="no-worker")
QUEUED = WaitReason(why="position 2", code="queued", position=2)


def imported(name: str, outcome: str, **more: object) -> ImportedFile:
    return ImportedFile(name=name, outcome=outcome, image=ImageId("i"), **more)  # type: ignore[arg-type]  # a literal


def test_progress_is_one_line_of_the_known_values() -> None:
    data = {"phase": "training", "current_step": 12, "total_steps": 400, "loss": 0.12345, "rate": 8.14, "eta": 47.7}
    assert format_progress(data) == "training  12/400  loss 0.1235  8.1 steps/s  48 s left"
    assert format_progress({"phase": "loading", "loss": None, "message": "base"}) == "loading  base"


def test_every_event_that_ends_a_job_has_a_line() -> None:
    assert EXIT_CODES.keys() == TERMINAL_EVENTS
    assert all(describe_frame(Frame(type=end)) for end in EXIT_CODES)
    failed = Frame(type="job.failed", description="Training failed (no-base): no such base")
    assert describe_frame(failed) == "Training failed (no-base): no such base"
    assert describe_frame(Frame(type="presence")) is None


def test_one_line_for_the_samples_of_a_step() -> None:
    frames = [Frame(type="job.sampled", description=f"Rendered sample {i + 1}", data={"index": i}) for i in range(3)]
    assert [describe_frame(frame) for frame in frames] == ["Rendered sample 1", None, None]


def test_an_import_is_summarised_by_its_counts_and_every_reason() -> None:
    conflict = "the caption is another one in the file, but was changed by hand"
    files = (
        imported("a.png", "added", text="tags", conflicts=(conflict,)),
        imported("b.png", "refused", reason="truncated", detail="it ends too early"),
        imported("e.png", "added"),
    )
    lines = format_import(
        ImportSummary(
            files=files,
            other_files=2,
            outside_links=3,
            unmatched=("d.txt",),
            unreadable=(("c.txt", "it is not UTF-8 text"),),
        )
    )
    assert lines == [
        "2 images imported, 0 already present, 1 skipped, 1 text read as tags (which are not encrypted), "
        "0 as captions, 2 other files ignored, 3 links out of the folder not followed, 1 text of no image",
        "Skipped files:",
        "  b.png: it ends too early",
        "  c.txt: it is not UTF-8 text",
        "  d.txt: there is no image of this name",
        "Not applied:",
        "  a.png: the caption is another one in the file, but was changed by hand",
    ]
    assert format_import(ImportSummary(files=files[2:])) == [
        "1 image imported, 0 already present, 0 skipped, 0 texts read as tags, 0 as captions"
    ]


def test_waiting_times_out_after_the_whole_timeout_without_a_worker() -> None:
    lines: list[str] = []
    wait = WorkerWait(60, lines.append)
    for second in range(61):
        wait.check(NO_WORKER, float(second))
    with pytest.raises(WaitTimeout, match="no worker for 60 s: no trainer connected since noon"):
        wait.check(NO_WORKER, 61.0)
    assert lines == ["Waiting: no trainer connected since noon"]


def test_the_timeout_starts_over_whenever_a_worker_connects() -> None:
    wait = WorkerWait(60, lambda _line: None)
    for second in range(0, 600, 50):
        wait.check(NO_WORKER if second % 100 else QUEUED, float(second))
    with pytest.raises(WaitTimeout):
        wait.check(NO_WORKER, 611.0)


def test_a_reason_that_lasts_less_than_a_second_is_not_printed() -> None:
    lines: list[str] = []
    wait = WorkerWait(None, lines.append)
    for now, waiting in ((0.0, QUEUED), (0.9, NO_WORKER), (1.5, QUEUED), (2.5, QUEUED), (9.0, QUEUED)):
        wait.check(waiting, now)
    assert lines == ["Waiting: position 2 in the queue"]


def test_unchanged_progress_is_not_repeated_in_a_log() -> None:
    out = io.StringIO()
    writer = ProgressWriter(out)
    for _ in range(3):
        writer.progress("training  1/2")
    writer.line("done")
    assert out.getvalue() == "training  1/2\ndone\n"
