"""Asking JetStream: None where it has nothing, Unavailable where it does not answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg, StreamInfo
from nats.js.errors import NotFoundError

from contracts import subjects
from contracts.errors import Unavailable

NATS_ERRORS = (nats.errors.Error, OSError)
"""What nats-py raises where the server does not answer, or refuses; includes JetStream's errors."""

_SILENT = {
    subjects.EVENTS: "the event log does not answer",
    subjects.QUEUE: "the job queue does not answer",
    subjects.METRICS: "the metrics stream does not answer",
    subjects.LEASES: "the lease cannot be read",
}


def silent(stream: str) -> Unavailable:
    """The error for a stream that does not answer."""
    return Unavailable(_SILENT[stream], service="nats")


@contextmanager
def translate_errors(stream: str) -> Iterator[None]:
    """Translates errors of NATS into Unavailable."""
    try:
        yield
    except NATS_ERRORS as error:
        raise silent(stream) from error


async def find_stream(js: JetStreamContext, stream: str, subjects_filter: str | None = None) -> StreamInfo | None:
    """The configuration and state of a stream; with a filter also how many messages each of these subjects has."""
    with translate_errors(stream):
        try:
            return await js.stream_info(stream, subjects_filter=subjects_filter)
        except NotFoundError:
            return None


async def find_message(js: JetStreamContext, stream: str, **options: Any) -> RawStreamMsg | None:
    """A stored message, read from the leader and not from a replica that may lag; `options` as for `get_msg`."""
    with translate_errors(stream):
        try:
            return await js.get_msg(stream, **options)
        except NotFoundError:
            return None
