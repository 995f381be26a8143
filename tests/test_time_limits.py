"""Limits of different services that must be in an order: who waits has more time than who works."""

from catalog.service.execution import ExecutionLimits
from catalog.service.purging import PurgeLimits
from contracts.wire.log.event_log import LogTimings
from contracts.wire.service.requests import RequestLimits, RequestTimings
from gateway.clients import COMMAND_TIMEOUT_SECONDS, IMPORT_TIMEOUT_SECONDS
from loratory.http import RESPONSE_TIMEOUT_SECONDS

PUBLISHES = 3
"""Of the last attempt to append: both ends of a batch, and reading back what was stored."""


def longest_command() -> float:
    """Seconds that the catalog may take for a command, decoding of images apart."""
    limits, log, queue = ExecutionLimits(), LogTimings(), RequestLimits().queue_timeout
    assert log.retries.time_limit is not None
    append = log.retries.time_limit + PUBLISHES * log.publish
    return queue + limits.repeat + limits.decide + append + limits.show + PurgeLimits().wait


def test_the_gateway_waits_longer_than_the_catalog_takes_and_the_client_longer_than_the_gateway() -> None:
    assert longest_command() < COMMAND_TIMEOUT_SECONDS
    assert COMMAND_TIMEOUT_SECONDS + RequestTimings().resend < RESPONSE_TIMEOUT_SECONDS
    assert longest_command() < IMPORT_TIMEOUT_SECONDS
