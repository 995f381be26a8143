"""What is missing, as sentences and lines."""

from contracts.losses import Loss, LossReport, loss_lines
from tests.conftest import NOW

KEY = Loss(kind="key", id="img_1", owner="img_1")


def test_a_report_names_the_first_losses_counts_the_others_and_says_what_to_do() -> None:
    report = LossReport(checked_at=NOW, blobs=9, keys=3, counts={"picture": 2, "key": 1}, first=(KEY,))
    assert report.total == 3
    assert loss_lines(report) == [
        "missing  key img_1 of img_1",
        "missing  2 more",
        "1 key, 2 pictures are missing; restore them with `loratory restore --from BACKUP`, "
        "or give them up with `loratory accept-loss`",
    ]


def test_a_single_loss_is_singular() -> None:
    assert LossReport(counts={"key": 1}).describe().startswith("1 key is missing; ")


def test_no_loss_and_no_comparison_are_two_different_answers() -> None:
    assert loss_lines(LossReport(checked_at=NOW, blobs=9, keys=3)) == ["all 9 blobs and 3 keys are there"]
    assert loss_lines(LossReport()) == ["blobs and keys were not compared with what must be there"]
    assert LossReport(checked_at=NOW).describe() == ""
