"""Every way to say no, as one tree; anything else that is raised is a bug.

    Refusal
    ├── Unauthenticated          401   no credential, or one that is not believed
    ├── Forbidden                403   believed, and not allowed
    │   ├── MissingScope               a scope is missing
    │   └── NotOnThisRoute             this kind of key does not reach this route
    ├── NotFound                 404   absent, or another's: the two are not told apart
    ├── InvalidInput             400   malformed; `path` names the field
    │   ├── Required                   absent
    │   ├── OutOfRange                 a number or length outside its limits
    │   └── WiderThanCaller      403   more than the caller's own rights
    ├── Taken                    409   must be unique, and is not
    ├── InvalidState             409   not in this state
    ├── IdempotencyConflict      422   the same key with another input
    ├── InsufficientCredit       402   too little credit
    ├── BoundReached             429   a limit or budget; says when to come back
    │   └── QuotaReached               a plan allows no more of what is held
    ├── UnknownModel             404   no such model here
    ├── Unpriced                 400   the model has no price: never free by accident
    └── Unavailable              503   something we need is away; try again

Each door translates the tree once: GraphQL user errors, the REST shapes, the inference dialects. `code` is stable and machine-readable,
`message` is for the caller to read and never holds a secret, `path` names the field at fault.
"""

from datetime import datetime

from models.enums import Resource


class Refusal(Exception):
    """A refusal that the caller may read; `code`, `status` and `message` are its public face."""

    code = "refused"
    status = 400

    def __init__(self, message: str, *, path: tuple[str, ...] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = path


class Unauthenticated(Refusal):
    """No credential, or one that is not believed; never says which part was wrong."""

    code = "unauthenticated"
    status = 401

    def __init__(self, message: str = "This credential is missing, unknown, revoked or expired.") -> None:
        super().__init__(message)


class Forbidden(Refusal):
    """The caller is known and may not do this."""

    code = "forbidden"
    status = 403


class MissingScope(Forbidden):
    """The credential lacks scopes; `scopes` names them in GraphQL's spelling."""

    def __init__(self, scopes: tuple[str, ...]) -> None:
        super().__init__(f"This needs scope {', '.join(scopes)}.")
        self.scopes = scopes


class NotOnThisRoute(Forbidden):
    """This kind of key does not reach this route."""

    code = "not_on_this_route"


class NotFound(Refusal):
    """There is no such thing, or not for this caller."""

    code = "not_found"
    status = 404

    def __init__(self, what: str, *, path: tuple[str, ...] | None = None) -> None:
        super().__init__(f"There is no such {what}.", path=path)
        self.what = what


class InvalidInput(Refusal):
    """A value is malformed."""

    code = "invalid"
    status = 400


class Required(InvalidInput):
    """A value is needed."""

    code = "required"


class OutOfRange(InvalidInput):
    """A number or a length is outside `minimum` and `maximum`, both inclusive; None is unbounded."""

    code = "out_of_range"

    def __init__(
        self, message: str, *, minimum: int | None, maximum: int | None, too_large: bool, path: tuple[str, ...] | None = None
    ) -> None:
        super().__init__(message, path=path)
        self.minimum = minimum
        self.maximum = maximum
        self.code = "too_large" if too_large else "too_small"


class WiderThanCaller(InvalidInput):
    """What is asked for goes beyond the caller's own rights."""

    code = "wider_than_caller"
    status = 403


class Taken(Refusal):
    """The value must be unique; `suggestions` are free ones close to it."""

    code = "taken"
    status = 409

    def __init__(self, message: str, *, suggestions: tuple[str, ...] = (), path: tuple[str, ...] | None = None) -> None:
        super().__init__(message, path=path)
        self.suggestions = suggestions


class InvalidState(Refusal):
    """The thing is in `state`, which does not allow this."""

    code = "invalid_state"
    status = 409

    def __init__(self, message: str, *, state: str, path: tuple[str, ...] | None = None) -> None:
        super().__init__(message, path=path)
        self.state = state


class IdempotencyConflict(Refusal):
    """The same idempotency key came with another input."""

    code = "idempotency_conflict"
    status = 422

    def __init__(self) -> None:
        super().__init__("This idempotency key was used before, with another input.", path=("idempotencyKey",))


class InsufficientCredit(Refusal):
    """There is too little credit; both amounts in microdollars."""

    code = "insufficient_credit"
    status = 402

    def __init__(self, message: str, *, available_microusd: int, required_microusd: int, path: tuple[str, ...] | None = None) -> None:
        super().__init__(message, path=path)
        self.available_microusd = available_microusd
        self.required_microusd = required_microusd


class BoundReached(Refusal):
    """A limit or a budget is used up; `resets_at` is None when no instant helps, `passes` tells that another call's end does."""

    code = "quota_exceeded"
    status = 429

    def __init__(self, message: str, *, bound: str, resets_at: datetime | None, passes: bool = False) -> None:
        super().__init__(message)
        self.bound = bound
        self.resets_at = resets_at
        self.passes = passes


class QuotaReached(BoundReached):
    """A plan allows no more of something that is held, as apps are: no instant helps, but a larger plan does."""

    def __init__(self, message: str, *, resource: Resource, limit: int, used: int) -> None:
        super().__init__(message, bound=resource.value, resets_at=None)
        self.resource = resource
        self.limit = limit
        self.used = used


class UnknownModel(Refusal):
    """No such model is offered here."""

    code = "unknown_model"
    status = 404


class UnknownAnswer(Refusal):
    """The earlier answer that a call names is not one of this workspace's."""

    code = "unknown_answer"
    status = 400


class Unpriced(Refusal):
    """The model, or something the request asks of it, has no price; it is refused rather than free."""

    code = "unpriced"
    status = 400


class Unavailable(Refusal):
    """Something that we need is away; `retry_after_seconds` is when to try again."""

    code = "unavailable"
    status = 503

    def __init__(self, message: str = "The gateway cannot do this right now; try again.", *, retry_after_seconds: int = 2) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
