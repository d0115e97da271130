"""What calls missed of the prompt cache."""

from typing import Self

import strawberry
from strawberry import field

from domain.usage import cache_misses as domain
from models.enums import CacheMissReason, PromptPart
from schema.amounts import Money
from schema.records import UsageRecord
from schema.scalars import SafeInt


@strawberry.type(description="A call that could have read from the prompt cache and did not.")
class CacheMiss:
    """As the contract has it."""

    usage_record: UsageRecord = field(description="The call.")
    previous: UsageRecord = field(description="The earlier call whose prefix was in the cache.")
    reason: CacheMissReason = field(description="Why it was not read.")
    part: PromptPart | None = field(description="The part of the prompt where the two first differ; null when they do not.")
    message_index: int | None = field(description="Which message of that part, from 0; null outside of messages.")
    shared_tokens: SafeInt = field(description="Tokens before that point.")
    missed_tokens: SafeInt = field(description="Tokens that were paid anew and could have been read.")
    cost: Money = field(description="What that cost the workspace.")

    @classmethod
    def of(cls, miss: domain.CacheMiss) -> Self:
        """The miss as GraphQL shows it."""
        return cls(
            usage_record=UsageRecord.of(miss.record),
            previous=UsageRecord.of(miss.previous),
            reason=miss.reason,
            part=miss.part,
            message_index=miss.message_index,
            shared_tokens=SafeInt(miss.shared_tokens),
            missed_tokens=SafeInt(miss.missed_tokens),
            cost=Money.of(miss.cost_microusd),
        )
