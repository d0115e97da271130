"""What a caller can repair: one interface, eight types, and their way from refusals."""

from collections.abc import Callable
from typing import Any, Final

import strawberry
from strawberry import field
from strawberry.extensions.field_extension import AsyncExtensionResolver, FieldExtension

from domain.errors import (
    IdempotencyConflict,
    InsufficientCredit,
    InvalidInput,
    InvalidState,
    NotFound,
    OutOfRange,
    QuotaReached,
    Refusal,
    Required,
    Taken,
    UnknownModel,
    Unpriced,
    WiderThanCaller,
)
from domain.money.processor import ProcessorFailed
from schema.amounts import Money
from schema.context import Info
from schema.enums import UserErrorCode
from schema.fields import resolved
from schema.limits import Quota
from schema.scalars import URL, SafeInt


@strawberry.interface(description="A problem that the caller can repair. Concrete types add what is needed to repair it.")
class UserError:
    """As the contract has it."""

    code: UserErrorCode = field(description="A stable, machine-readable reason.")
    message: str = field(description="What went wrong, in English, for a person to read.")
    path: list[str] | None = field(
        description='The path to the offending input field, for example `["input", "amountUsd"]`; null when no single field is at fault.'
    )


@strawberry.type(description="A value is missing, malformed or out of range.")
class InvalidInputError(UserError):
    """As the contract has it."""

    code: UserErrorCode = field(description="A stable, machine-readable reason.")
    message: str = field(description="What went wrong.")
    path: list[str] | None = field(description="The path to the offending input field.")


@strawberry.type(description="The thing named does not exist, or the credential may not see it.")
class NotFoundError(UserError):
    """As the contract has it."""

    code: UserErrorCode = field(description="A stable, machine-readable reason.")
    message: str = field(description="What went wrong.")
    path: list[str] | None = field(description="The path to the offending input field.")


@strawberry.type(description="The value must be unique and is taken.")
class TakenError(UserError):
    """As the contract has it."""

    code: UserErrorCode = field(description="A stable, machine-readable reason.")
    message: str = field(description="What went wrong.")
    path: list[str] | None = field(description="The path to the offending input field.")
    suggestions: list[str] = field(description="Free values close to it.")


@strawberry.type(description="The thing is in a state that does not allow this.")
class InvalidStateError(UserError):
    """As the contract has it."""

    code: UserErrorCode = field(description="A stable, machine-readable reason.")
    message: str = field(description="What went wrong.")
    path: list[str] | None = field(description="The path to the offending input field.")
    current_state: str = field(description="The state it is in.")


@strawberry.type(description="A number is outside its limits.")
class OutOfRangeError(UserError):
    """As the contract has it."""

    code: UserErrorCode = field(description="A stable, machine-readable reason.")
    message: str = field(description="What went wrong.")
    path: list[str] | None = field(description="The path to the offending input field.")
    minimum: SafeInt | None = field(description="The least allowed.")
    maximum: SafeInt | None = field(description="The most allowed.")


@strawberry.type(description="A tier's quota is used up.")
class QuotaExceededError(UserError):
    """As the contract has it."""

    code: UserErrorCode = field(description="A stable, machine-readable reason.")
    message: str = field(description="What went wrong.")
    path: list[str] | None = field(description="The path to the offending input field.")
    quota: Quota = field(description="The quota that is used up.")

    @resolved("Where to choose another tier.")
    def upgrade_url(self, info: Info) -> URL:
        """The console's page."""
        return URL(f"{info.context.facilities.public_url}/billing")


@strawberry.type(description="There is too little credit.")
class InsufficientCreditError(UserError):
    """As the contract has it."""

    code: UserErrorCode = field(description="A stable, machine-readable reason.")
    message: str = field(description="What went wrong.")
    path: list[str] | None = field(description="The path to the offending input field.")
    available: Money = field(description="What can be spent.")
    required: Money = field(description="What is needed.")


@strawberry.type(description="Stripe refused or could not be reached.")
class PaymentProviderError(UserError):
    """As the contract has it."""

    code: UserErrorCode = field(description="A stable, machine-readable reason.")
    message: str = field(description="What went wrong.")
    path: list[str] | None = field(description="The path to the offending input field.")
    provider_code: str | None = field(description="Stripe's own code.")
    retryable: bool = field(description="Whether trying again may help.")


EVERY_TYPE: Final = [
    InvalidInputError,
    NotFoundError,
    TakenError,
    InvalidStateError,
    OutOfRangeError,
    QuotaExceededError,
    InsufficientCreditError,
    PaymentProviderError,
]


def user_error(refusal: Refusal) -> UserError | None:
    """The refusal as an error that the caller can repair; None for one that belongs at the top level: forbidden, throttled, away."""
    path = None if refusal.path is None else ["input", *refusal.path]
    message = refusal.message
    match refusal:
        case NotFound() | UnknownModel():
            return NotFoundError(code=UserErrorCode.NOT_FOUND, message=message, path=path)
        case OutOfRange():
            return OutOfRangeError(
                code=UserErrorCode.TOO_LARGE if refusal.code == "too_large" else UserErrorCode.TOO_SMALL,
                message=message,
                path=path,
                minimum=_safe(refusal.minimum),
                maximum=_safe(refusal.maximum),
            )
        case WiderThanCaller():
            return InvalidInputError(code=UserErrorCode.WIDER_THAN_CALLER, message=message, path=path)
        case Required():
            return InvalidInputError(code=UserErrorCode.REQUIRED, message=message, path=path)
        case IdempotencyConflict():
            return InvalidInputError(code=UserErrorCode.IDEMPOTENCY_CONFLICT, message=message, path=path)
        case InvalidInput() | Unpriced():
            return InvalidInputError(code=UserErrorCode.INVALID, message=message, path=path)
        case Taken():
            return TakenError(code=UserErrorCode.TAKEN, message=message, path=path, suggestions=list(refusal.suggestions))
        case InvalidState():
            return InvalidStateError(code=UserErrorCode.INVALID_STATE, message=message, path=path, current_state=refusal.state)
        case QuotaReached():
            quota = Quota.held(refusal.resource, refusal.limit, refusal.used)
            return QuotaExceededError(code=UserErrorCode.QUOTA_EXCEEDED, message=message, path=path, quota=quota)
        case ProcessorFailed():
            return PaymentProviderError(
                code=UserErrorCode.PAYMENT_UNAVAILABLE if refusal.code == "payment_unavailable" else UserErrorCode.PAYMENT_DECLINED,
                message=message,
                path=path,
                provider_code=refusal.provider_code,
                retryable=refusal.retryable,
            )
        case InsufficientCredit():
            return InsufficientCreditError(
                code=UserErrorCode.INSUFFICIENT_CREDIT,
                message=message,
                path=path,
                available=Money.of(refusal.available_microusd),
                required=Money.of(refusal.required_microusd),
            )
    return None


def _safe(number: int | None) -> SafeInt | None:
    return None if number is None else SafeInt(number)


class Repairable(FieldExtension):
    """Answers a refusal that the caller can repair as a payload whose `userErrors` tell it."""

    def __init__(self, payload: Callable[..., Any]) -> None:
        """Answer with this payload."""
        self.payload = payload

    async def resolve_async(self, next_: AsyncExtensionResolver, source: Any, info: Info, **arguments: Any) -> Any:
        """Run the mutation."""
        try:
            return await next_(source, info, **arguments)
        except Refusal as refusal:
            error = user_error(refusal)
            if error is None:
                raise
            return self.payload(user_errors=[error])
