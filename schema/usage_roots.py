"""The mutations of usage records; `schema/mutation.py` is made of them."""

import datetime
from typing import Annotated

import strawberry
from strawberry import UNSET, field

from domain.usage.corrections import NewRecord
from models.enums import Scope
from resolvers import usage as resolvers
from schema.apps_roots import guarded, row
from schema.context import Info
from schema.fields import resolved
from schema.inputs import given
from schema.records import UsageRecord
from schema.scalars import MicroUsd, SafeInt
from schema.user_errors import UserError


@strawberry.input(description="Input of usageRecordCreate.")
class UsageRecordCreateInput:
    """As the contract has it."""

    api_name: str = field(description="The metered API, for example `llm_query`.")
    endpoint: str = field(description="The path called.")
    units: SafeInt = field(description="Units used, 0 or more.")
    cost: MicroUsd = field(description="The charge, 0 or more.")
    api_key_id: strawberry.ID | None = field(description="The key used.", default=UNSET)
    app_id: strawberry.ID | None = field(description="The app.", default=UNSET)
    user_id: strawberry.ID | None = field(description="The person; the caller when absent. Another than oneself needs `OPERATOR`.", default=UNSET)
    created_at: datetime.datetime | None = field(description="When the call began; now when absent.", default=UNSET)
    idempotency_key: str | None = field(description="Makes a retry return the first record instead of another.", default=UNSET)

    def new(self) -> NewRecord:
        """The record as the domain takes it. Raises NotFound for an ID of another type."""
        key_id, app_id, user_id = given(self.api_key_id), given(self.app_id), given(self.user_id)
        return NewRecord(
            api_name=self.api_name,
            endpoint=self.endpoint,
            units=self.units,
            charge_microusd=self.cost,
            key_id=None if key_id is None else row("ApiKey", key_id, "key", "apiKeyId"),
            app_id=None if app_id is None else row("App", app_id, "app", "appId"),
            user_id=None if user_id is None else row("User", user_id, "user", "userId"),
            at=self.created_at or None,
            idempotency_key=given(self.idempotency_key),
        )


@strawberry.input(description="Input of usageRecordAdjust.")
class UsageRecordAdjustInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The record.")
    units: SafeInt | None = field(description="The right units; as they are when absent.", default=UNSET)
    cost: MicroUsd | None = field(description="The right charge; as it is when absent.", default=UNSET)
    reason: str = field(description="Why.")


@strawberry.input(description="Input of usageRecordVoid.")
class UsageRecordVoidInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The record.")
    reason: str = field(description="Why.")


@strawberry.type(description="Result of usageRecordCreate.")
class UsageRecordCreatePayload:
    """As the contract has it."""

    usage_record: UsageRecord | None = field(description="The record.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of usageRecordAdjust.")
class UsageRecordAdjustPayload:
    """As the contract has it."""

    usage_record: UsageRecord | None = field(description="The record.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of usageRecordVoid.")
class UsageRecordVoidPayload:
    """As the contract has it."""

    usage_record: UsageRecord | None = field(description="The record, now voided.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


def _given(number: int | None) -> int | None:
    return number if isinstance(number, int) else None


@strawberry.type
class UsageMutations:
    """Writes of usage records."""

    @resolved("Log a metered call by hand. Requires scope `USAGE_WRITE`.", extensions=guarded(UsageRecordCreatePayload, Scope.USAGE_WRITE))
    async def usage_record_create(
        self, info: Info, input: Annotated[UsageRecordCreateInput, strawberry.argument(description="The record.")]
    ) -> UsageRecordCreatePayload | None:
        """Log and charge it."""
        return UsageRecordCreatePayload(usage_record=UsageRecord.of(await resolvers.record_create(info.context, input.new())))

    @resolved(
        "Correct a record: its old values stay visible as an adjustment. Requires scope `OPERATOR`.",
        extensions=guarded(UsageRecordAdjustPayload, Scope.OPERATOR),
    )
    async def usage_record_adjust(
        self, info: Info, input: Annotated[UsageRecordAdjustInput, strawberry.argument(description="What to change.")]
    ) -> UsageRecordAdjustPayload | None:
        """Correct it."""
        record_id = row("UsageRecord", input.id, "usage record", "id")
        record = await resolvers.record_adjust(info.context, record_id, _given(input.units), _given(input.cost), input.reason)
        return UsageRecordAdjustPayload(usage_record=UsageRecord.of(record))

    @resolved(
        "Take a record out of every total and give back its charge. Requires scope `OPERATOR`.",
        extensions=guarded(UsageRecordVoidPayload, Scope.OPERATOR),
    )
    async def usage_record_void(
        self, info: Info, input: Annotated[UsageRecordVoidInput, strawberry.argument(description="The record.")]
    ) -> UsageRecordVoidPayload | None:
        """Void it."""
        record = await resolvers.record_void(info.context, row("UsageRecord", input.id, "usage record", "id"), input.reason)
        return UsageRecordVoidPayload(usage_record=UsageRecord.of(record))
