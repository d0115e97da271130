"""Document 2: usage of the billing period, in dollars as decimal text."""

from collections.abc import Iterable
from datetime import date, datetime

from pydantic import Field

from domain.access.callers import Caller
from domain.apps import plans, registry
from domain.money import subscriptions
from domain.money.amounts import usd
from domain.money.subscriptions import BillingView, QuotaView
from domain.money.tiers import Limit
from domain.usage import billing_periods, measure, windows
from domain.usage.metrics import CALLS, Detail, Dimension, Question, UsageFilter
from domain.usage.windows import BillingPeriod, Days, Granularity, Window
from models.enums import Resource
from rest.apps_named import find_app, named_apps
from rest.doors import Ask, Document, Operation
from rest.fields import Asked, Integer, Nothing, Told
from rest.shapes import LISTED, ListedError

ZONE = "UTC"
"""The document names no time zone."""
MOST_DAYS = 366
NO_PLAN, NO_STATUS, UPGRADE_URL = "No Plan", "none", "/billing"
PEOPLE = frozenset({Detail.END_USERS})


class Plan(Told):
    """The plan in force; without one, its name is `No Plan` and its status `none`. A limit is null when there is none."""

    api_call_limit: int | None
    billing_cycle: str | None
    conversation_limit: int | None
    current_period_end: datetime | None
    current_period_start: datetime | None
    instance_limit: int | None
    max_sites_per_node: int | None
    plan_name: str
    price_cents: int
    product_name: str | None
    status: str
    tier_id: str | None
    tier_slug: str | None
    token_allowance: int | None
    trial_days_remaining: int
    trial_ends_at: datetime | None


class PlanUsage(Told):
    """What was used in the billing period, and what all subscriptions together allow."""

    active_instances: int
    api_call_limit: int | None
    conversation_limit: int | None
    instance_limit: int | None
    max_sites_per_node: int | None
    platform_cost_usd: str
    token_allowance: int | None
    total_cost_usd: str
    total_hosted_sites: int
    total_requests: int
    total_tokens: int
    unique_end_users: int
    webhost_nodes: int


class BillingPage(Told):
    """The current plan and its usage."""

    plan: Plan
    subscribed_tier_ids: list[str]
    usage: PlanUsage


class TrialStatus(Told):
    """Subscription and dates alone."""

    plan_name: str
    status: str
    trial_days_remaining: int
    trial_ends_at: datetime | None
    trial_expired: bool
    upgrade_url: str


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
    """Usage of the billing period, in all and by instance; `token_usage_pct` is how much of the plan's tokens its keys have spent, 0 without a limit."""

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


def _most(limits: Iterable[Limit], resource: Resource) -> int | None:
    chosen = subscriptions.longest(limits, resource)
    return None if chosen is None else chosen.most


def _limit(quotas: Iterable[QuotaView], resource: Resource) -> int | None:
    chosen = subscriptions.longest(quotas, resource)
    return None if chosen is None else chosen.limit


async def _period(caller: Caller) -> Window:
    """The current period of the subscription in force; without one, the calendar month."""
    return await billing_periods.window(caller, BillingPeriod.CURRENT, ZONE)


def _plan(billing: BillingView) -> Plan:
    tier, mine, trial = billing.tier, billing.subscription, billing.trial
    limits = tier.limits if tier else ()
    return Plan(
        api_call_limit=_most(limits, Resource.API_CALLS),
        billing_cycle=tier.billing_cycle.value if tier else None,
        conversation_limit=_most(limits, Resource.CONVERSATIONS),
        current_period_end=mine.current_period_end if mine else None,
        current_period_start=mine.current_period_start if mine else None,
        instance_limit=_most(limits, Resource.APPS),
        max_sites_per_node=_most(limits, Resource.SITES_PER_NODE),
        plan_name=tier.name if tier else NO_PLAN,
        price_cents=tier.price_cents if tier else 0,
        product_name=tier.product_name if tier else None,
        status=mine.status.value if mine else NO_STATUS,
        tier_id=tier.slug if tier else None,
        tier_slug=tier.slug if tier else None,
        token_allowance=_most(limits, Resource.TOKENS),
        trial_days_remaining=trial.days_remaining if trial else 0,
        trial_ends_at=trial.ends_at if trial else None,
    )


async def _billing(ask: Ask[Nothing]) -> BillingPage:
    billing = await subscriptions.billing(ask.caller)
    quotas = await subscriptions.quotas(billing.workspace_id, at=ask.caller.at)
    window = await _period(ask.caller)
    used = await measure.totals(ask.caller, window, details=PEOPLE, columns=CALLS)
    instances, sites = await registry.in_use(billing.workspace_id)
    per_node = _limit(quotas, Resource.SITES_PER_NODE)
    return BillingPage(
        plan=_plan(billing),
        subscribed_tier_ids=sorted({each.tier for each in billing.current}),
        usage=PlanUsage(
            active_instances=instances,
            api_call_limit=_limit(quotas, Resource.API_CALLS),
            conversation_limit=_limit(quotas, Resource.CONVERSATIONS),
            instance_limit=_limit(quotas, Resource.APPS),
            max_sites_per_node=per_node,
            platform_cost_usd=usd(used.platform_cost_microusd),
            token_allowance=_limit(quotas, Resource.TOKENS),
            total_cost_usd=usd(used.charge_microusd),
            total_hosted_sites=sites,
            total_requests=used.requests,
            total_tokens=used.tokens,
            unique_end_users=used.end_users or 0,
            webhost_nodes=plans.nodes_for(sites, per_node),
        ),
    )


async def _trial(ask: Ask[Nothing]) -> TrialStatus:
    billing = await subscriptions.billing(ask.caller)
    trial = billing.trial
    return TrialStatus(
        plan_name=billing.tier.name if billing.tier else NO_PLAN,
        status=billing.subscription.status.value if billing.subscription else NO_STATUS,
        trial_days_remaining=trial.days_remaining if trial else 0,
        trial_ends_at=trial.ends_at if trial else None,
        trial_expired=trial is not None and trial.expired,
        upgrade_url=UPGRADE_URL,
    )


async def _usage(ask: Ask[Nothing]) -> PeriodUsage:
    window = await _period(ask.caller)
    used = await measure.totals(ask.caller, window, details=PEOPLE, columns=CALLS)
    groups = await measure.groups(ask.caller, window, Question(by=(Dimension.APP,), first=None, details=PEOPLE, columns=CALLS))
    names = await named_apps(ask.caller, [group.values for group in groups])
    tokens = subscriptions.longest(await subscriptions.quotas(ask.caller.workspace(), at=ask.caller.at), Resource.TOKENS)
    allowed, spent = (tokens.limit or 0, tokens.used or 0) if tokens else (0, 0)
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
        token_allowance_monthly=allowed,
        token_usage_pct=round(spent * 100 / allowed, 2) if allowed else 0,
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
            for point in await measure.series(ask.caller, window, Granularity.DAY, wanted, columns=CALLS)
        ],
    )


DOCUMENT = Document(
    name="Billing",
    shape=lambda headers: LISTED,
    errors=ListedError,
    operations=(
        Operation("GET", "/v1/billing", "The current plan and its usage.", Nothing, BillingPage, _billing),
        Operation("GET", "/v1/billing/trial-status", "Subscription and trial dates, without a look at usage.", Nothing, TrialStatus, _trial),
        Operation("GET", "/v1/billing/usage", "Usage of the billing period, by instance.", Nothing, PeriodUsage, _usage),
        Operation("GET", "/v1/billing/usage/chart", "Usage by day, of one instance if asked.", ChartQuery, UsageChart, _chart, refusals=(404, 422)),
    ),
)
