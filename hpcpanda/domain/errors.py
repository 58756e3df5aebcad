"""The one error tree of the product.

Every error has a ``code``: the dispatcher maps it to an HTTP status, the client maps it back to the
same class. Messages are for the person who has to act: what is wrong, where, and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class HpcPandaError(Exception):
    """Root of all errors that the product raises on purpose."""

    code: ClassVar[str] = "error"


class InvalidValue(HpcPandaError, ValueError):
    """A value from outside breaks a rule; the message names the field."""

    code = "invalid-value"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class NotFound(HpcPandaError):
    """The thing named does not exist, or the caller may not know that it does."""

    code = "not-found"


class IllegalTransition(HpcPandaError):
    """The state the thing is in does not allow what was asked."""

    code = "illegal-transition"


class Conflict(HpcPandaError):
    """The request contradicts an earlier one that it claims to repeat."""

    code = "conflict"


class Unauthenticated(HpcPandaError):
    """No valid token came with the request."""

    code = "unauthenticated"


class Forbidden(HpcPandaError):
    """The token is valid but does not allow this."""

    code = "forbidden"


class EdgeNameTaken(HpcPandaError):
    """Another living edge instance is registered under the same name."""

    code = "edge-name-taken"


class LeaseLost(HpcPandaError):
    """The epoch is unknown or its lease has ended: its holder has no right to the events any more."""

    code = "lease-lost"


class TooLarge(HpcPandaError):
    """A request or a value is larger than the service accepts."""

    code = "too-large"


class Unavailable(HpcPandaError):
    """The other side cannot be reached or cannot answer now; trying again later is right."""

    code = "unavailable"


class TooManyRequests(Unavailable):
    """The caller asks more often than the service allows; trying again later is right."""

    code = "too-many-requests"

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class CorruptData(HpcPandaError):
    """Stored data fails its checksum or breaks its format."""

    code = "corrupt-data"


class MergeFailed(HpcPandaError):
    """The segments of a task cannot be made into its output; nothing was replaced or deleted."""

    code = "merge-failed"


class PayloadFailed(HpcPandaError):
    """User code failed: it cannot be imported, set up, or run over a range."""

    code = "payload-failed"


class SchedulerFailed(HpcPandaError):
    """The batch system refused a request or cannot be reached."""

    code = "scheduler-failed"
