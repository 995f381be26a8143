"""Limits and timings as values that are passed in; the defaults are those of a running gateway. Times in seconds."""

import msgspec


class LiveLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Of the live feed and its subscribers."""

    ring_events: int = 10_000
    ring_bytes: int = 64 << 20
    commits_at_start: int = 500
    """Commits before the log's end that are read at the start: one may have a thousand events. Clients that lack older
    ones read them from the catalog."""
    stale_after: float = 2.0
    """Silence of the catalog after which a frame says that what clients see may be outdated."""
    tick: float = 0.25
    send_stall: float = 5.0
    events_behind: int = 256
    """A subscriber with more events to go, whose current send takes longer than `send_stall`, is disconnected."""
    queued_replies: int = 64
    """A client that sends requests without reading more replies than these is disconnected."""


class UploadLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one upload; `text_bytes` is the maximum size of its JSON fields together."""

    file_bytes: int = 64 << 20
    files: int = 1000
    text_bytes: int = 16 << 20


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Of what a connection sends before, and beside, what a route reads."""

    header_bytes: int = 32 << 10
    """Maximum size of a request's address and headers together, and of a body's chunk sizes and trailers."""
    header_seconds: float = 10.0
    """Maximum time until a request's headers are complete, from the start of the connection or of the request."""
    body_seconds: float = 30.0
    body_rate: float = 100.0
    """Bytes per second that a body must bring in each `body_seconds` in which the route waits for it."""
    half_open: int = 200
    """Maximum connections that wait for headers; of more the one that waits longest is closed."""


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Of clients that send wrong keys."""

    attempts: int = 10
    """Wrong keys of one address that are answered at once."""
    seconds_per_attempt: float = 6.0
    """Time after which the address has one more."""
    delay: float = 1.0
    """Time until each further one is answered."""
    waiting: int = 64
    """Maximum answers that are delayed at a time; more are sent at once."""
    addresses: int = 10_000
    """Maximum addresses in memory."""


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Of HTTP responses."""

    response_stall: float = 60.0
    """Maximum time for one chunk of a response to be sent; then the response is aborted."""
    event_streams: int = 200
    """Maximum open streams of events; each may hold a page in memory."""
    keepalive: float = 15.0
    """Maximum time without a message on a stream of events; then its current cursor is sent."""
    catalog_retry: float = 1.0
    """Delay after which a stream of events queries an unavailable catalog again."""
    replay_poll: float = 0.25
    exports: int = 4
    """Maximum exports at once; each holds the texts and names of its images in memory, compressed."""


LIVE_LIMITS, UPLOAD_LIMITS, HTTP_LIMITS = LiveLimits(), UploadLimits(), HttpLimits()
CONNECTION_LIMITS, KEY_LIMITS = ConnectionLimits(), KeyLimits()
