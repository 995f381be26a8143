"""The errors of all services. The docstring of a class is its message where none is given.

Inside, raise these with `from`. At the edges one table turns them into problem documents (RFC 9457). `code` is the
stable name that clients match on, over HTTP and over the bus; in brackets the HTTP status (-: never reaches HTTP).

    LoratoryError                 internal                  [500] anything else that went wrong
    ├── Invalid                   invalid                   [400] malformed: a field, a parameter, a body
    ├── NotFound                  not-found                 [404]
    ├── Gone                      gone                      [410] removed or erased for good
    ├── Lost                      lost                      [410] its loss was accepted: no copy exists
    ├── BlobMissing               blob-missing              [409] its bytes should be stored, and are not
    ├── KeyMissing                key-missing               [409] its texts cannot be read, and were not erased
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

Some modules add a child of their own next to the code that raises it, such as `Crash` of `wire.workers.attempt`.
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

    def __init_subclass__(cls, *, code: str | None = None) -> None:
        """A child without a code of its own has that of its parent."""
        cls.code = code or cls.code

    def __init__(self, detail: str = "", **extra: object) -> None:
        """`extra` are additional members of the problem document; they must be plain JSON values."""
        self.detail = detail or (type(self).__doc__ or "").strip()
        self.extra = extra
        super().__init__(self.detail)


class Invalid(LoratoryError, code="invalid"):
    """The request is malformed."""


class NotFound(LoratoryError, code="not-found"):
    """It does not exist."""


class Gone(LoratoryError, code="gone"):
    """It existed, and was removed for good."""


class Lost(LoratoryError, code="lost"):
    """It is lost for good: no copy exists, and the loss was accepted."""


class BlobMissing(LoratoryError, code="blob-missing"):
    """Bytes that should be stored are missing; restore them from a backup."""


class KeyMissing(LoratoryError, code="key-missing"):
    """The key of private texts that were not erased is missing; restore it from a backup."""


class Conflict(LoratoryError, code="conflict"):
    """It was changed concurrently; load it again and retry."""


class IllegalTransition(LoratoryError, code="illegal-transition"):
    """This is not possible in its current state."""


class InUse(LoratoryError, code="in-use"):
    """Unfinished work needs it; wait until that has ended, or cancel it, and retry."""


class StaleVersion(LoratoryError, code="stale-version"):
    """It has changed since the version in If-Match."""


class Rejected(LoratoryError, code="rejected"):
    """The request is well formed, but the rules do not allow it."""


class KeyReused(LoratoryError, code="idempotency-key-reused"):
    """This Idempotency-Key was already used with a different request."""


class TooLarge(LoratoryError, code="too-large"):
    """This is larger than allowed."""


class Unavailable(LoratoryError, code="unavailable"):
    """A required service does not answer."""


class Behind(LoratoryError, code="behind"):
    """The read model has not applied that write yet; retry."""


class LogFull(LoratoryError, code="log-full"):
    """Nothing more can be stored: the event log is full, or the disk of NATS or of a service is."""


class LogDamaged(LoratoryError, code="log-damaged"):
    """The event log is not what was written; nothing is served or appended until it is restored."""


class Fenced(LoratoryError, code="fenced"):
    """Another attempt holds this work now; this one must stop and append nothing."""


class SetupError(LoratoryError, code="setup"):
    """The service cannot start with these settings or on this machine."""


BY_CODE: dict[str, type[LoratoryError]] = {"internal": LoratoryError} | {
    kind.code: kind for kind in LoratoryError.__subclasses__()
}


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
