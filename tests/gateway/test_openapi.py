"""The OpenAPI document is correct: schemathesis calls every operation of a real stack, with a fixed seed."""

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.limits import WAIT
from tests.live_fields import LIVE_FIELDS

EXAMPLES = 4


@pytest.mark.slow
def test_every_operation_responds_as_described(address: str) -> None:
    # Imported here, because every process of a parallel run collects this file, and the import takes a second.
    import schemathesis  # noqa: PLC0415
    from schemathesis.checks import not_a_server_error  # noqa: PLC0415
    from schemathesis.core.failures import FailureGroup  # noqa: PLC0415
    from schemathesis.core.result import Ok  # noqa: PLC0415
    from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: PLC0415

    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    failed: list[str] = []
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case[Any]) -> None:
            case.query.pop("min_seq", None)  # the catalog would wait for a sequence far ahead
            # 503 is documented; and data that matches the schema may still be refused by rules (an invalid cursor).
            response = case.call_and_validate(excluded_checks=[not_a_server_error, positive_data_acceptance])
            assert response.status_code != 500, case.as_curl_command()

        try:
            check()
        except FailureGroup as group:
            failed += [f"{operation.label}: {one}" for one in group.exceptions]
    assert not failed, "\n\n".join(failed)


def test_live_fields_name_operations_that_exist(address: str) -> None:
    paths = httpx.get(f"{address}/openapi.json", timeout=WAIT).json()["paths"]
    assert set(LIVE_FIELDS) <= {path for path, operations in paths.items() if "get" in operations}
