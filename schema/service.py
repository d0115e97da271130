"""The running service and the rate limit."""

import datetime
from typing import Self

import strawberry
from strawberry import field

from domain.apps import manifest
from domain.usage import windows
from domain.webhooks import EVENTS
from schema.context import Context
from schema.scalars import URL


@strawberry.type(description="The GraphQL rate limit, a bucket of points that refills steadily.")
class RateLimit:
    """As the contract has it."""

    cost: int = field(description="What this operation costs.")
    limit: int = field(description="The size of the bucket.")
    remaining: int = field(description="Points left after this operation.")
    restore_rate: float = field(description="Points that come back each second.")
    reset_at: datetime.datetime = field(description="When the bucket will be full again.")

    @classmethod
    def of(cls, context: Context) -> Self:
        """What the operation under way costs, and what it leaves."""
        assert context.taken is not None, "an operation is weighed before it runs"
        return cls(
            cost=context.cost,
            limit=context.taken.limit_points,
            remaining=context.taken.remaining_points,
            restore_rate=context.taken.restore_points,
            reset_at=datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=context.taken.full_in_seconds),
        )


@strawberry.type(description="How far back and how wide usage may be asked at one granularity.")
class UsageLimit:
    """As the contract has it."""

    granularity: windows.Granularity = field(description="The granularity.")
    kept_days: int | None = field(description="Days for which it is kept; null means for ever.")
    widest_days: int = field(description="The widest window in days.")


@strawberry.type(description="The running service.")
class Service:
    """As the contract has it."""

    version: str = field(description="Its version, for example `1.4.0`.")
    time: datetime.datetime = field(description="The instant of the answer, to measure clock skew.")
    public_url: URL = field(description="Its base address as seen from outside.")
    documentation_url: URL = field(description="Where its manual is.")
    manifest_schema_url: URL = field(description="The JSON Schema of an app's manifest.")
    webhook_events: list[str] = field(description="Names of the events that a webhook endpoint can choose, for example `top_up.fulfilled`.")
    payments_enabled: bool = field(description="Whether payments are configured.")
    usage_limits: list[UsageLimit] = field(description="How far back and how wide usage may be asked, for each granularity.")

    @classmethod
    def of(cls, context: Context) -> Self:
        """The service as its settings describe it."""
        return cls(
            version=context.facilities.version,
            time=datetime.datetime.now(datetime.UTC),
            public_url=URL(context.facilities.public_url),
            documentation_url=URL(f"{context.facilities.public_url}/docs"),
            manifest_schema_url=URL(f"{context.facilities.public_url}{manifest.PATH}"),
            webhook_events=list(EVENTS),
            payments_enabled=context.facilities.payments is not None,
            usage_limits=[UsageLimit(granularity=each, kept_days=None, widest_days=length.days) for each, length in windows.WIDEST.items()],
        )
