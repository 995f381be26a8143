"""The read model is only a view of the log: deleted, it comes back the same to the byte."""

import pytest

from tests.acceptance.conftest import Finished
from tests.acceptance.crawl import crawl, differences
from tests.acceptance.house import House

pytestmark = [pytest.mark.slow]


def test_a_deleted_read_model_is_rebuilt_and_every_get_answers_the_same(house: House, finished: Finished) -> None:
    with house.http() as http:
        before = crawl(http)
    assert {answer.status for answer in before.values()} == {200}
    seen = sum(answer.route == "/api/v1/images/{image}/file" for answer in before.values())
    assert seen >= 2 * 7  # the basket's, as they are and small; other tests of this workshop may have left more

    house.stop()
    files = list((house.data / "catalog").glob("read.db*"))
    assert files
    for file in files:
        file.unlink()
    house.start()

    with house.http() as http:
        after = crawl(http)
    assert differences(before, after) == []


def test_after_a_whole_run_every_read_model_is_what_the_log_makes_of_it(house: House, finished: Finished) -> None:
    with house.client() as client:
        report = client.audit_replay()
    assert (report.state, report.difference) == ("same", None)
    assert {"image", "job", "prediction", "checkpoint_of_job", "sample"} <= {
        name for name, rows in report.rows.items() if rows
    }
