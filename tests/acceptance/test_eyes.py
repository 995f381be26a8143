"""One request is found again in every log and commit it led to; the metrics of all services are the documented ones."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from contracts.wire.service.metrics_endpoint import Target, target_file
from loratory.services import SERVICES
from tests.acceptance.conftest import Finished
from tests.acceptance.local_stack import LocalStack
from tests.limits import WAIT

pytestmark = pytest.mark.slow

REQUEST_ID = "from-a-client.1"
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
ROW = re.compile(r"^\| `(loratory_\w+)(?:\{([\w,]+)\})?` \| ([\w, ]+) \|", re.MULTILINE)


def log_lines(stack: LocalStack, service: str) -> Iterator[dict[str, Any]]:
    """The lines of a service's log that have the request's id."""
    for line in (stack.data / "logs" / f"{service}.log").read_text().splitlines():
        if REQUEST_ID in line:
            yield msgspec.json.decode(line)


def test_one_request_is_followed_from_http_to_the_commits_and_to_the_log_of_the_trainer(
    stack: LocalStack, finished: Finished
) -> None:
    body = {
        "dataset": "basket",
        "preset": "ours",
        "changes": {"length.count": 2, "data.resolution": 64},
        "auto_start": True,
    }
    with stack.http() as http, stack.client() as client:
        response = http.post("/api/v1/jobs", json=body, headers={"X-Request-ID": REQUEST_ID})
        assert response.is_success, response.text
        assert response.headers["X-Request-ID"] == REQUEST_ID
        job = response.json()["id"]
        assert client.wait_job(job, timeout=WAIT).status == "completed"
        events = http.get(f"/api/v1/jobs/{job}/events").json()["items"]
    assert {event["correlation_id"] for event in events} == {REQUEST_ID}
    assert {"job.created", "job.attempt_started", "job.succeeded"} <= {event["type"] for event in events}
    answered = [line for line in log_lines(stack, "gateway") if line["event"] == "http_request_answered"]
    assert [(line["route"], line["status"]) for line in answered] == [("/api/v1/jobs", response.status_code)]
    handled = [line["name"] for line in log_lines(stack, "catalog") if line["event"] == "command_handled"]
    assert handled == ["CreateJob"]
    of_attempt = [line for line in log_lines(stack, "trainer") if line.get("aggregate_id") == job]
    assert {line["request_id"] for line in of_attempt} == {REQUEST_ID}
    assert {"attempt_started", "checkpoint_saved"} <= {line["event"] for line in of_attempt}


def documented(service: str) -> dict[str, set[str]]:
    """Name and labels of each metric that the table has for a service."""
    rows = ROW.findall(OPERATIONS.read_text(encoding="utf-8"))
    assert len(rows) > 30
    return {
        name.removesuffix("_total"): set(labels.split(",")) - {""}
        for name, labels, services in rows
        if services == "all" or service in services.split(", ")
    }


@pytest.mark.parametrize("service", SERVICES)
def test_every_metric_of_a_service_is_in_the_table_and_the_other_way_round(
    stack: LocalStack, finished: Finished, service: str
) -> None:
    (target,) = msgspec.json.decode(target_file(stack.data / "run", service).read_bytes(), type=list[Target])
    response = httpx.get(f"http://{target.targets[0]}/metrics", timeout=WAIT).raise_for_status()
    shown: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(response.text):
        if family.name.startswith("loratory_") and not family.name.endswith("_created"):
            labels = [set(sample.labels) - {"le"} for sample in family.samples]
            shown[family.name] = set().union(*labels)
    table = documented(service)
    assert shown.keys() == table.keys()
    # Some have no value now: no error of the bus, nobody waits, no CUDA device.
    assert {name: labels for name, labels in shown.items() if labels != table[name] and labels} == {}


def test_the_metrics_say_what_the_workshop_did(stack: LocalStack, finished: Finished) -> None:
    def value(service: str, sample: str) -> float:
        (target,) = msgspec.json.decode(target_file(stack.data / "run", service).read_bytes(), type=list[Target])
        text = httpx.get(f"http://{target.targets[0]}/metrics", timeout=WAIT).text
        return float(next(line for line in text.splitlines() if line.startswith(sample)).rpartition(" ")[2])

    assert value("catalog", 'loratory_jobs{class="train",state="completed"}') >= 1
    assert value("catalog", 'loratory_attempts_ended_total{class="train",outcome="succeeded"}') >= 1
    assert value("catalog", 'loratory_blob_bytes{kind="lora"}') > 0
    assert value("catalog", 'loratory_commands_total{command="CreateJob",outcome="ok"}') >= 1
    assert value("gateway", 'loratory_workers{service="trainer"}') == 1
    assert value("gateway", "loratory_announcement_age_seconds") < WAIT
    assert value("trainer", 'loratory_worker_state{state="idle"}') == 1
    with stack.http() as http:
        assert "loratory_http_requests_total" in http.get("/metrics").text
