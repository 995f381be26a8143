"""What can be refused, and in which words. The docstring is the message where none is given.

Inside, raise these with `from`. At the edges one table turns them into problem documents (RFC 9457); `code` is the
stable name that clients match on, and it travels over the bus as well.
"""

from typing import ClassVar

import msgspec


class FieldError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing wrong in a body: a JSON pointer (RFC 6901) and a sentence."""

    pointer: str
    message: str


class LoratoryError(Exception):
    """Something went wrong in Loratory."""

    code: ClassVar[str] = "internal"

    def __init__(self, detail: str = "", **facts: object) -> None:
        """`facts` are extra members of the problem document; they must be plain JSON values."""
        self.detail = detail or (type(self).__doc__ or "").strip()
        self.facts = facts
        super().__init__(self.detail)


class Invalid(LoratoryError):
    """The request is malformed."""

    code = "invalid"


class NotFound(LoratoryError):
    """There is no such thing."""

    code = "not-found"


class Gone(LoratoryError):
    """It was here, and has been removed for good."""

    code = "gone"


class Conflict(LoratoryError):
    """Somebody else changed it first; load it again and retry."""

    code = "conflict"


class IllegalTransition(LoratoryError):
    """That cannot be done in its present state."""

    code = "illegal-transition"


class InUse(LoratoryError):
    """Work that has not ended needs it; let it end, or cancel it, and ask again."""

    code = "in-use"


class StaleVersion(LoratoryError):
    """It has changed since the version you saw (If-Match)."""

    code = "stale-version"


class Rejected(LoratoryError):
    """The request is well formed, but the rules refuse it."""

    code = "rejected"


class KeyReused(LoratoryError):
    """This Idempotency-Key was used before with another request."""

    code = "idempotency-key-reused"


class TooLarge(LoratoryError):
    """That is larger than allowed."""

    code = "too-large"


class Unavailable(LoratoryError):
    """A service that is needed does not answer."""

    code = "unavailable"


class Behind(LoratoryError):
    """The read model has not caught up with that write yet; ask again."""

    code = "behind"


class LogFull(LoratoryError):
    """Nothing more is stored: the event log is full, or its disk is, or that of whoever was asked."""

    code = "log-full"


class LogDamaged(LoratoryError):
    """The event log is not the one that was written; nothing is served or written until it is restored."""

    code = "log-damaged"


class Fenced(LoratoryError):
    """Another attempt holds this work now; this one must stop and write nothing."""

    code = "fenced"


class SetupError(LoratoryError):
    """It cannot start with these settings or on this machine."""

    code = "setup"


def _family(kind: type[LoratoryError]) -> dict[str, type[LoratoryError]]:
    found = {kind.code: kind}
    for child in kind.__subclasses__():
        found |= _family(child)
    return found


BY_CODE: dict[str, type[LoratoryError]] = _family(LoratoryError)


class Trouble(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error on the bus: what a problem document needs, without HTTP."""

    code: str
    detail: str
    facts: dict[str, object] = {}

    @classmethod
    def of(cls, error: LoratoryError) -> "Trouble":
        return cls(code=error.code, detail=error.detail, facts=error.facts)

    def raised(self) -> LoratoryError:
        """The same error on the other side; a code of a newer peer becomes the general error."""
        return BY_CODE.get(self.code, LoratoryError)(self.detail, **self.facts)
