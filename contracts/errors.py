"""The errors of all services. The docstring of a class is its message where none is given.

Inside, raise these with `from`. At the edges one table turns them into problem documents (RFC 9457). `code` is the
stable name that clients match on, over HTTP and over the bus; in brackets the HTTP status (-: never reaches HTTP).

    LoratoryError                 internal                  [500] anything else that went wrong
    ├── Invalid                   invalid                   [400] malformed: a field, a parameter, a body
    ├── NotFound                  not-found                 [404]
    ├── Gone                      gone                      [410] removed or erased for good
    ├── Conflict                  conflict                  [409] a concurrent change won; reload and retry
    ├── IllegalTransition         illegal-transition        [409] not possible in its current state
    ├── InUse                     in-use                    [409] unfinished work needs it
    ├── StaleVersion              stale-version             [412] changed since the ETag in If-Match
    ├── Rejected                  rejected                  [422] well formed, but against the rules
    ├── KeyReused                 idempotency-key-reused    [422] one Idempotency-Key, two requests
    ├── TooLarge                  too-large                 [413]
    ├── Unavailable               unavailable               [503] a service does not answer
    ├── Behind                    behind                    [503] the read model has not applied that write yet
    ├── LogFull                   log-full                  [507] the log or a disk is full
    ├── LogDamaged                log-damaged               [503] the log is not the one that was written
    ├── Fenced                    fenced                    [-]   another attempt holds this work
    └── SetupError                setup                     [-]   cannot start with these settings

Some modules add a child of their own next to the code that raises it, such as `Crash` in `contracts.wire.attempt`.
"""

from typing import ClassVar

import msgspec


class FieldError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One invalid field of a body: a JSON pointer (RFC 6901) and a sentence."""

    pointer: str
    message: str


class LoratoryError(Exception):
    """Something went wrong in Loratory."""

    code: ClassVar[str] = "internal"

    def __init__(self, detail: str = "", **extra: object) -> None:
        """`extra` are additional members of the problem document; they must be plain JSON values."""
        self.detail = detail or (type(self).__doc__ or "").strip()
        self.extra = extra
        super().__init__(self.detail)


class Invalid(LoratoryError):
    """The request is malformed."""

    code = "invalid"


class NotFound(LoratoryError):
    """It does not exist."""

    code = "not-found"


class Gone(LoratoryError):
    """It existed, and was removed for good."""

    code = "gone"


class Conflict(LoratoryError):
    """It was changed concurrently; load it again and retry."""

    code = "conflict"


class IllegalTransition(LoratoryError):
    """This is not possible in its current state."""

    code = "illegal-transition"


class InUse(LoratoryError):
    """Unfinished work needs it; wait until that has ended, or cancel it, and retry."""

    code = "in-use"


class StaleVersion(LoratoryError):
    """It has changed since the version in If-Match."""

    code = "stale-version"


class Rejected(LoratoryError):
    """The request is well formed, but the rules do not allow it."""

    code = "rejected"


class KeyReused(LoratoryError):
    """This Idempotency-Key was already used with a different request."""

    code = "idempotency-key-reused"


class TooLarge(LoratoryError):
    """This is larger than allowed."""

    code = "too-large"


class Unavailable(LoratoryError):
    """A required service does not answer."""

    code = "unavailable"


class Behind(LoratoryError):
    """The read model has not applied that write yet; retry."""

    code = "behind"


class LogFull(LoratoryError):
    """Nothing more can be stored: the event log is full, or the disk of NATS or of a service is."""

    code = "log-full"


class LogDamaged(LoratoryError):
    """The event log is not what was written; nothing is served or appended until it is restored."""

    code = "log-damaged"


class Fenced(LoratoryError):
    """Another attempt holds this work now; this one must stop and append nothing."""

    code = "fenced"


class SetupError(LoratoryError):
    """The service cannot start with these settings or on this machine."""

    code = "setup"


def _by_code(kind: type[LoratoryError]) -> dict[str, type[LoratoryError]]:
    found = {kind.code: kind}
    for child in kind.__subclasses__():
        found |= _by_code(child)
    return found


BY_CODE: dict[str, type[LoratoryError]] = _by_code(LoratoryError)


class ErrorReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as sent over the bus: what a problem document needs, without HTTP."""

    code: str
    detail: str
    extra: dict[str, object] = {}

    @classmethod
    def from_error(cls, error: LoratoryError) -> "ErrorReply":
        return cls(code=error.code, detail=error.detail, extra=error.extra)

    def to_error(self) -> LoratoryError:
        """The error on the receiving side; an unknown code (of a newer peer) becomes LoratoryError."""
        return BY_CODE.get(self.code, LoratoryError)(self.detail, **self.extra)
