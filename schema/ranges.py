"""Which stretch of time a report is of, and what narrows it."""

import datetime
from typing import Annotated
from uuid import UUID

import strawberry
from strawberry import field

from domain.usage.metrics import TagFilter as Tagged
from domain.usage.metrics import UsageFilter as Narrowing
from domain.usage.windows import Between, BillingPeriod, Days, Range, RelativeRange
from models import enums
from schema import enums as described  # noqa: F401  # describes the enums of ranges before a type uses one
from schema import ids
from schema.errors import unacceptable
from schema.scalars import TimeZone


@strawberry.input(description="From one instant to another.")
class InstantRange:
    """As the contract has it."""

    start: datetime.datetime = field(description="Inclusive.")
    end: datetime.datetime | None = field(description="Exclusive; now when absent.", default=strawberry.UNSET)


@strawberry.input(description="From one local day to another, both included.")
class DayRange:
    """As the contract has it."""

    first: datetime.date = field(description="The first day.")
    last: datetime.date | None = field(description="The last day; today when absent.", default=strawberry.UNSET)


@strawberry.input(description="Which window to report: exactly one of these.", one_of=True)
class UsageRange:
    """As the contract has it."""

    last: RelativeRange | None = field(description="A window that ends now.", default=strawberry.UNSET)
    between: InstantRange | None = field(description="From one instant to another, 400 days at most.", default=strawberry.UNSET)
    days: DayRange | None = field(description="Whole local days.", default=strawberry.UNSET)
    billing_period: BillingPeriod | None = field(
        description="A billing period of the subscription; the calendar month when there is none.", default=strawberry.UNSET
    )

    def wanted(self) -> Range:
        """The range as the domain takes it. Exactly one is given: GraphQL has seen to that."""
        if self.between:
            return Between(self.between.start, self.between.end or None)
        if self.days:
            return Days(self.days.first, self.days.last or None)
        found = self.last or self.billing_period
        assert found, "exactly one is given"
        return found


@strawberry.input(description="Matches calls by one tag.")
class TagFilter:
    """As the contract has it."""

    name: str = field(description="The tag's name.")
    values: list[str] | None = field(description="Its values, as alternatives; any when absent.", default=strawberry.UNSET)


@strawberry.input(description="Narrows a report. Fields given together must all match; the values of one list are alternatives.")
class UsageFilter:
    """As the contract has it."""

    models: list[str] | None = field(description="Models by name.", default=strawberry.UNSET)
    providers: list[str] | None = field(description="Upstream providers.", default=strawberry.UNSET)
    apps: list[strawberry.ID] | None = field(description="Apps by ID.", default=strawberry.UNSET)
    api_keys: list[strawberry.ID] | None = field(description="API keys by ID.", default=strawberry.UNSET)
    users: list[strawberry.ID] | None = field(
        description="People by ID. Another than oneself needs `USAGE_READ_ALL`.", default=strawberry.UNSET
    )
    end_users: list[strawberry.ID] | None = field(description="End users by ID.", default=strawberry.UNSET)
    conversations: list[str] | None = field(description="Conversations by the ID that calls name.", default=strawberry.UNSET)
    tags: list[TagFilter] | None = field(description="Tags that calls carry, all of them.", default=strawberry.UNSET)
    presets: list[str] | None = field(
        description="Tool presets, `cursor` for every version or `cursor@3` for one.", default=strawberry.UNSET
    )
    api_names: list[str] | None = field(description="Metered APIs by name.", default=strawberry.UNSET)
    endpoints: list[str] | None = field(description="Paths called.", default=strawberry.UNSET)
    languages: list[str] | None = field(description="Languages of the content.", default=strawberry.UNSET)

    def wanted(self, outcomes: tuple[enums.UsageOutcome, ...] | None = None) -> Narrowing:
        """The filter as the domain takes it. Raises BAD_USER_INPUT for an ID of another type."""
        return Narrowing(
            models=_tuple(self.models),
            providers=_tuple(self.providers),
            apps=_rows("App", self.apps),
            api_keys=_rows("ApiKey", self.api_keys),
            users=_rows("User", self.users),
            end_user_ids=_rows("EndUser", self.end_users),
            conversations=_tuple(self.conversations),
            presets=_tuple(self.presets),
            api_names=_tuple(self.api_names),
            endpoints=_tuple(self.endpoints),
            languages=_tuple(self.languages),
            outcomes=outcomes,
            tags=tuple(Tagged(tag.name, _tuple(tag.values)) for tag in self.tags or ()),
        )


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return tuple(values) if isinstance(values, list) else None


def _rows(kind: str, global_ids: list[strawberry.ID] | None) -> tuple[UUID, ...] | None:
    if not isinstance(global_ids, list):
        return None
    found = [ids.uuid_of(kind, each) for each in global_ids]
    if None in found:
        raise unacceptable(f"The filter names something that is no ID of type {kind}.")
    return tuple(each for each in found if each)


DEFAULT_RANGE = UsageRange(last=RelativeRange.LAST_7_DAYS)

Over = Annotated[UsageRange, strawberry.argument(description="The window to report.")]
Zone = Annotated[TimeZone, strawberry.argument(description="The zone in which days, weeks and months begin.")]
Narrowed = Annotated[UsageFilter | None, strawberry.argument(description="Only the usage that matches.")]
UTC = TimeZone("UTC")
