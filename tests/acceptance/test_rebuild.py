"""The read model is derived from the log: after deletion it is rebuilt, and all responses are identical."""

import pytest

from tests.acceptance.conftest import Finished
from tests.acceptance.crawl import compare, crawl
from tests.acceptance.local_stack import LocalStack


@pytest.mark.slow
def test_a_deleted_read_model_is_rebuilt_and_every_get_response_is_identical(
    stack: LocalStack, finished: Finished
) -> None:
    with stack.http() as http:
        before = crawl(http)
    statuses = {response.status for response in before.values() if not response.route.endswith("/mask")}
    assert statuses == {200}  # images need no mask
    files = sum(response.route == "/api/v1/images/{image}/file" for response in before.values())
    assert files >= 2 * 7  # picture and source of each image in "basket"; other tests may have added more

    stack.stop()
    databases = list((stack.data / "catalog").glob("read.db*"))
    assert databases
    for file in databases:
        file.unlink()
    stack.start()

    with stack.http() as http:
        after = crawl(http)
    assert compare(before, after) == []


def test_after_a_complete_run_the_read_model_equals_a_replay_of_the_log(stack: LocalStack, finished: Finished) -> None:
    with stack.client() as client:
        report = client.audit_replay()
    assert (report.state, report.difference) == ("same", None)
    assert {"image", "job", "prediction", "checkpoint_of_job", "sample"} <= {
        name for name, rows in report.rows.items() if rows
    }
