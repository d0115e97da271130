"""Document 2: usage of the billing period, in dollars as decimal text."""

from datetime import date, datetime

from pydantic import Field

from domain.money.amounts import usd
from domain.usage import measure, windows
from domain.usage.metrics import Detail, Dimension, Question, UsageFilter
from domain.usage.windows import BillingPeriod, Days, Granularity
from rest.apps_named import find_app, named_apps
from rest.doors import Ask, Document, Operation
from rest.fields import Asked, Integer, Nothing, Told
from rest.shapes import LISTED, ListedError

ZONE = "UTC"
"""The document names no time zone."""
MOST_DAYS = 366
PEOPLE = frozenset({Detail.END_USERS})


class InstanceUsage(Told):
    """Usage of one instance, which is an app; `instance_id` and `name` are null for usage without one."""

    instance_id: str | None
    name: str | None
    requests: int
    tokens: int
    cost_usd: str
    platform_cost_usd: str
    unique_end_users: int


class PeriodUsage(Told):
    """Usage of the billing period, in all and by instance; `token_usage_pct` is of the plan's tokens, 0 without a plan."""

    by_instance: list[InstanceUsage]
    period_end: datetime
    period_start: datetime
    platform_cost_usd: str
    token_allowance_monthly: int
    token_usage_pct: float
    total_cost_usd: str
    total_requests: int
    total_tokens: int
    unique_end_users: int


class ChartQuery(Asked):
    """How many days, today included, and of which instance only."""

    days: Integer = Field(default=30, ge=1, le=MOST_DAYS)
    instance_id: str | None = None


class ChartPoint(Told):
    """Usage of one day."""

    cost_usd: str
    date: date
    requests: int
    tokens: int


class UsageChart(Told):
    """Usage by day, oldest first, without gaps."""

    period_label: str
    points: list[ChartPoint]


async def _usage(ask: Ask[Nothing]) -> PeriodUsage:
    window = windows.resolve(BillingPeriod.CURRENT, ZONE, ask.caller.at)
    used = await measure.totals(ask.caller, window, details=PEOPLE)
    groups = await measure.groups(ask.caller, window, Question(by=(Dimension.APP,), first=None, details=PEOPLE))
    names = await named_apps(ask.caller, [group.values for group in groups])
    return PeriodUsage(
        by_instance=[
            InstanceUsage(
                instance_id=name.id if name else None,
                name=name.name if name else None,
                requests=group.metrics.requests,
                tokens=group.metrics.tokens,
                cost_usd=usd(group.metrics.charge_microusd),
                platform_cost_usd=usd(group.metrics.platform_cost_microusd),
                unique_end_users=group.metrics.end_users or 0,
            )
            for group, name in zip(groups, names, strict=True)
        ],
        period_end=window.end,
        period_start=window.start,
        platform_cost_usd=usd(used.platform_cost_microusd),
        token_allowance_monthly=0,
        token_usage_pct=0,
        total_cost_usd=usd(used.charge_microusd),
        total_requests=used.requests,
        total_tokens=used.tokens,
        unique_end_users=used.end_users or 0,
    )


async def _chart(ask: Ask[ChartQuery]) -> UsageChart:
    wanted = UsageFilter() if ask.given.instance_id is None else UsageFilter(apps=(await find_app(ask.caller, ask.given.instance_id),))
    window = windows.resolve(Days.ending(ask.caller.at, ask.given.days, ZONE), ZONE, ask.caller.at)
    return UsageChart(
        period_label="Today" if ask.given.days == 1 else f"Last {ask.given.days} days",
        points=[
            ChartPoint(
                cost_usd=usd(point.metrics.charge_microusd),
                date=point.bucket.day,
                requests=point.metrics.requests,
                tokens=point.metrics.tokens,
            )
            for point in await measure.series(ask.caller, window, Granularity.DAY, wanted)
        ],
    )


DOCUMENT = Document(
    name="Billing",
    shape=lambda headers: LISTED,
    errors=ListedError,
    operations=(
        Operation("GET", "/v1/billing/usage", "Usage of the billing period, by instance.", Nothing, PeriodUsage, _usage),
        Operation("GET", "/v1/billing/usage/chart", "Usage by day, of one instance if asked.", ChartQuery, UsageChart, _chart, refusals=(404, 422)),
    ),
)
