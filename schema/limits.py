"""Budgets and limits: the most that something may spend or call, and where that stands."""

import datetime
from collections.abc import Sequence
from typing import Self
from uuid import UUID

import strawberry
from strawberry import field

from domain.access.limits import BoundInput, BoundView
from domain.errors import InvalidInput
from models import enums
from models.enums import LimitPer, Measure, Resource
from schema.amounts import Money
from schema.catalogue import Model, model_named
from schema.context import Info
from schema.fields import resolved
from schema.inputs import given
from schema.scalars import MicroUsd, SafeInt, Window


@strawberry.type(description="The most that may be spent in a window.")
class Budget:
    """A bound on money."""

    window: Window = field(description="The window.")
    limit: Money = field(description="The most.")
    per: enums.LimitPer = field(description="Whose calls count together.")
    spent: Money | None = field(description="What the window has spent; null for a bound on each end user or address.")
    held: Money | None = field(description="What calls under way have set aside; null as `spent`.")
    remaining: Money | None = field(description="What is left: `limit` less `spent` and `held`; null as `spent`.")
    percent: float | None = field(description="`spent` in percent of `limit`; null as `spent`.")
    started_at: datetime.datetime | None = field(description="When the current window began; null for `lifetime`, and as `spent`.")
    resets_at: datetime.datetime | None = field(description="When `spent` next falls; null for `lifetime`, and as `spent`.")
    of_model: strawberry.Private[str | None]

    @resolved("The only model that counts; null means all.")
    def model(self, info: Info) -> Model | None:
        """Read it in the book."""
        return model_named(info, self.of_model)

    @classmethod
    def of(cls, bound: BoundView) -> Self:
        """The bound as GraphQL shows it."""
        left = None if bound.spent is None else max(0, bound.most - bound.spent - (bound.held or 0))
        lasting = bound.window == "lifetime"
        return cls(
            window=Window(bound.window),
            limit=Money.of(bound.most),
            per=bound.per,
            spent=None if bound.spent is None else Money.of(bound.spent),
            held=None if bound.held is None else Money.of(bound.held),
            remaining=None if left is None else Money.of(left),
            percent=None if bound.spent is None else _percent(bound.spent, bound.most),
            started_at=None if lasting else bound.started_at,
            resets_at=None if lasting else bound.ends_at,
            of_model=bound.model,
        )


@strawberry.type(description="The most of a resource in a window, and what is used: set by a tier, by an owner, or by an upstream.")
class Quota:
    """A bound on a count. What calls under way have set aside counts as used."""

    resource: enums.Resource = field(description="The resource.")
    window: Window = field(description="The window.")
    limit: SafeInt | None = field(description="The most allowed; null means unlimited.")
    per: enums.LimitPer = field(description="Whose calls count together.")
    used: SafeInt | None = field(description="How much is used; null for a bound on each end user or address.")
    remaining: SafeInt | None = field(description="How much is left; null means unlimited, and as `used`.")
    percent: float | None = field(description="`used` in percent of `limit`; null means unlimited, and as `used`.")
    started_at: datetime.datetime | None = field(
        description="When the current window began; null for a resource that is held, not spent, and as `used`."
    )
    resets_at: datetime.datetime | None = field(
        description="When `used` next falls; null for a resource that is held, not spent, and as `used`."
    )
    of_model: strawberry.Private[str | None]

    @resolved("The only model that counts; null means all.")
    def model(self, info: Info) -> Model | None:
        """Read it in the book."""
        return model_named(info, self.of_model)

    @classmethod
    def of(cls, bound: BoundView) -> Self:
        """The bound as GraphQL shows it."""
        used = None if bound.spent is None else bound.spent + (bound.held or 0)
        lasting = bound.window in ("lifetime", "concurrent")
        return cls(
            resource=Resource.TOKENS if bound.measure is Measure.TOKENS else Resource.API_CALLS,
            window=Window(bound.window),
            limit=SafeInt(bound.most),
            per=bound.per,
            used=None if used is None else SafeInt(used),
            remaining=None if used is None else SafeInt(max(0, bound.most - used)),
            percent=None if used is None else _percent(used, bound.most),
            started_at=None if lasting else bound.started_at,
            resets_at=None if lasting else bound.ends_at,
            of_model=bound.model,
        )

    @classmethod
    def held(cls, resource: Resource, limit: int, used: int) -> Self:
        """What a plan allows of something that is held, not spent, for all of the workspace together."""
        return cls(
            resource=resource,
            window=Window("concurrent"),
            limit=SafeInt(limit),
            per=LimitPer.TOGETHER,
            used=SafeInt(used),
            remaining=SafeInt(max(0, limit - used)),
            percent=_percent(used, limit),
            started_at=None,
            resets_at=None,
            of_model=None,
        )


def _percent(used: int, most: int) -> float:
    return round(used * 100 / most, 2) if most else 100.0


async def budgets_of(info: Info, subject: "Limited") -> list[Budget]:
    """The bounds on money of something."""
    return [Budget.of(bound) for bound in await _bounds(info, subject) if bound.measure is Measure.MONEY]


async def limits_of(info: Info, subject: "Limited") -> list[Quota]:
    """The bounds on counts of something."""
    return [Quota.of(bound) for bound in await _bounds(info, subject) if bound.measure is not Measure.MONEY]


async def _bounds(info: Info, subject: "Limited") -> Sequence[BoundView]:
    return await info.context.bounds.load(subject.subject_id) or ()


@strawberry.interface(
    description=(
        "Something whose calls can be bounded. All bounds hold at once; the first that is reached refuses the call and "
        "says when to come back."
    )
)
class Limited:
    """Whatever has bounds; `subject_id` is the row's own id."""

    subject_id: strawberry.Private[UUID]

    @resolved("The most that it may spend, over one or several windows.")
    async def budgets(self, info: Info) -> list[Budget]:
        """Load them."""
        return await budgets_of(info, self)

    @resolved("The most calls and tokens, over one or several windows.")
    async def limits(self, info: Info) -> list[Quota]:
        """Load them."""
        return await limits_of(info, self)


@strawberry.input(description="A budget to set.")
class BudgetInput:
    """As the contract has it."""

    window: Window = field(description="The window.")
    limit: MicroUsd = field(description="The most.")
    per: enums.LimitPer = field(description="Whose calls count together.", default=enums.LimitPer.TOGETHER)
    model: str | None = field(description="The only model that counts, by name; all when absent.", default=strawberry.UNSET)

    def bound(self) -> BoundInput:
        """The bound to set."""
        return BoundInput(Measure.MONEY, self.window, self.limit, self.per, given(self.model))


@strawberry.input(description="A limit to set.")
class LimitInput:
    """As the contract has it."""

    resource: enums.Resource = field(description="The resource: API_CALLS or TOKENS.")
    window: Window = field(description="The window.")
    limit: SafeInt = field(description="The most.")
    per: enums.LimitPer = field(description="Whose calls count together.", default=enums.LimitPer.TOGETHER)
    model: str | None = field(description="The only model that counts, by name; all when absent.", default=strawberry.UNSET)

    def bound(self, place: int) -> BoundInput:
        """The bound to set; raises InvalidInput, with its place in the list, for a resource that calls do not use."""
        if self.resource not in (Resource.API_CALLS, Resource.TOKENS):
            raise InvalidInput("Only API_CALLS and TOKENS can be limited here.", path=("limits", str(place), "resource"))
        spent = Measure.TOKENS if self.resource is Resource.TOKENS else Measure.CALLS
        held = self.window == "concurrent" and spent is Measure.CALLS
        return BoundInput(Measure.CONCURRENT if held else spent, self.window, self.limit, self.per, given(self.model))


def bounds(budgets: Sequence[BudgetInput]) -> tuple[BoundInput, ...]:
    """The bounds of a list of budgets."""
    return tuple(budget.bound() for budget in budgets)


def limit_bounds(limits: Sequence[LimitInput]) -> tuple[BoundInput, ...]:
    """The bounds of a list of limits."""
    return tuple(limit.bound(place) for place, limit in enumerate(limits))
