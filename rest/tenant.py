"""Document 4's tenant routes: a workspace's keys and credit, in snake_case and micros."""

from datetime import date, datetime, timedelta
from typing import Annotated
from uuid import UUID

from pydantic import BeforeValidator, Field

from domain.access import keys
from domain.access.keys import KeyView
from domain.errors import OutOfRange
from domain.money import ledger, subscriptions
from domain.money.tiers import SPENT
from domain.usage import measure, windows
from domain.usage.metrics import CALLS, Metrics, Question
from domain.usage.windows import Days, Granularity
from models.enums import ApiKeyKind, ApiKeyStatus, Resource, Scope, SubscriptionStatus
from rest.doors import Ask, Document, Operation
from rest.fields import Asked, Day, Instant, Microusd, Nothing, Told, choice
from rest.keys import every_key, make_key, parse_key_id
from rest.shapes import TYPED, TypedError
from rest.topups import portal, subscribe, top_up

ZONE = "UTC"
"""The document names no time zone."""
DEFAULT_DAYS, MOST_DAYS = 30, 366


def _underscored(kind: str) -> str:
    """Mend the hyphen of the document's prose, `pay-per-token`."""
    return kind.replace("-", "_")


class TenantKey(Told):
    """A key, without its secret."""

    id: UUID
    name: str | None
    kind: ApiKeyKind
    prefix: str
    suffix: str
    status: ApiKeyStatus
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None


class MintedKey(TenantKey):
    """A key that was made; `key` is its secret, shown this once."""

    key: str


class TenantKeys(Told):
    """The workspace's keys, newest first."""

    data: list[TenantKey]


class TenantKeyBody(Asked):
    """A key to make: of the caller's own kind, and for ever, where nothing is said."""

    name: str | None = None
    kind: Annotated[ApiKeyKind | None, BeforeValidator(choice(ApiKeyKind, _underscored))] = None
    expires_at: Instant | None = None


class TopUpBody(Asked):
    """How much credit to buy, in US dollars with at most two decimals."""

    amount_usd: Microusd


class Checkout(Told):
    """The page to send the customer to, and Stripe's id of it."""

    url: str
    session_id: str


class CheckoutBody(Asked):
    """The tier to subscribe to, by its slug."""

    tier: str


class Portal(Told):
    """Stripe's page where the customer manages cards, invoices and subscriptions."""

    url: str


class TenantCredits(Told):
    """Prepaid credit in micros of a US dollar: `available_micros` is what can be spent, after what calls under way hold."""

    balance_micros: int
    available_micros: int
    held_micros: int
    currency: str


class UsageQuery(Asked):
    """First and last day in UTC, both included: the last 30 days where nothing is said, 366 at most."""

    first: Day | None = Field(default=None, alias="from")
    last: Day | None = Field(default=None, alias="to")


class DayUsage(Told):
    """Usage of one day; `tokens` is all of them, `input_tokens` with those read from and written to the prompt cache."""

    date: date
    requests: int
    tokens: int
    input_tokens: int
    output_tokens: int
    cost_micros: int


class TotalUsage(Told):
    """Usage of all days."""

    requests: int
    tokens: int
    input_tokens: int
    output_tokens: int
    cost_micros: int


class TenantUsage(Told):
    """Usage by day, oldest first, without gaps, and in all."""

    first: date = Field(serialization_alias="from")
    last: date = Field(serialization_alias="to")
    days: list[DayUsage]
    total: TotalUsage


class TenantQuota(Told):
    """What a tier allows of `unit` in a window; null for no limit. The instants are null until a call opens the window."""

    window: str
    unit: Resource
    limit: int | None
    used: int
    remaining: int | None
    window_start: datetime | None
    resets_at: datetime | None


class TenantSubscription(Told):
    """The tier in force and its 24-hour quota, with every window of what calls use up beside it; null without a subscription."""

    tier: str | None
    status: SubscriptionStatus | None
    current_period_end: datetime | None
    quota: TenantQuota | None
    windows: list[TenantQuota]


def _told(key: KeyView) -> TenantKey:
    return TenantKey(
        id=key.id,
        name=key.name,
        kind=key.kind,
        prefix=key.secrets[0].prefix,
        suffix=key.secrets[0].suffix,
        status=key.status,
        created_at=key.created_at,
        last_used_at=key.last_used_at,
        expires_at=key.expires_at,
    )


async def _list_keys(ask: Ask[Nothing]) -> TenantKeys:
    return TenantKeys(data=[_told(key) for key in await every_key(ask.caller)])


async def _make_key(ask: Ask[TenantKeyBody]) -> MintedKey:
    key, secret = await make_key(ask, ask.given.name, ask.given.kind, ask.given.expires_at)
    return MintedKey(**dict(_told(key)), key=secret)


async def _find_key(ask: Ask[Nothing]) -> TenantKey:
    return _told(await keys.find(ask.caller, parse_key_id(ask.path["id"])))


async def _revoke_key(ask: Ask[Nothing]) -> None:
    ask.caller.require(Scope.KEYS_WRITE)
    await keys.revoke(ask.caller, parse_key_id(ask.path["id"]))


def _counted(used: Metrics) -> dict[str, int]:
    return {
        "requests": used.requests,
        "tokens": used.tokens,
        "input_tokens": used.tokens - used.output_tokens,
        "output_tokens": used.output_tokens,
        "cost_micros": used.charge_microusd,
    }


def _days(given: UsageQuery, now: datetime) -> Days:
    first, last = given.first, given.last
    if first is None:
        end = last or now.date()
        first = end - min(timedelta(days=DEFAULT_DAYS - 1), end - date.min)
    last = last or max(now.date(), first)
    if (last - first).days >= MOST_DAYS:
        raise OutOfRange(f"At most {MOST_DAYS} days.", minimum=1, maximum=MOST_DAYS, too_large=True, path=("from",))
    return Days(first, last)


async def _usage(ask: Ask[UsageQuery]) -> TenantUsage:
    days = _days(ask.given, ask.caller.at)
    window = windows.resolve(days, ZONE, ask.caller.at)
    (used,) = await measure.series_by(ask.caller, window, Granularity.DAY, Question(columns=CALLS))
    assert days.last is not None
    return TenantUsage(
        first=days.first,
        last=days.last,
        days=[DayUsage(date=point.bucket.day, **_counted(point.metrics)) for point in used.points],
        total=TotalUsage(**_counted(used.totals)),
    )


async def _credits(ask: Ask[Nothing]) -> TenantCredits:
    balance = await ledger.balance(ask.caller.require(Scope.BILLING_READ))
    return TenantCredits(balance_micros=balance.balance, available_micros=balance.available, held_micros=balance.held, currency="USD")


async def _top_up(ask: Ask[TopUpBody]) -> Checkout:
    url, session_id = await top_up(ask.runtime, ask.caller, ask.headers, ask.given.amount_usd, path="amount_usd")
    return Checkout(url=url, session_id=session_id)


async def _subscription(ask: Ask[Nothing]) -> TenantSubscription:
    billing = await subscriptions.billing(ask.caller)
    windows = [
        TenantQuota(
            window=quota.window,
            unit=quota.resource,
            limit=quota.limit,
            used=quota.used or 0,
            remaining=quota.remaining,
            window_start=quota.started_at,
            resets_at=quota.resets_at,
        )
        for quota in await subscriptions.quotas(billing.workspace_id, at=ask.caller.at)
        if quota.resource in SPENT
    ]
    main = billing.subscription
    daily = {quota.unit: quota for quota in windows if quota.window == "24h"}
    return TenantSubscription(
        tier=billing.tier.slug if billing.tier else None,
        status=main.status if main else None,
        current_period_end=main.current_period_end if main else None,
        quota=next((daily[unit] for unit in (Resource.TOKENS, Resource.API_CALLS, Resource.CREDITS, Resource.CONVERSATIONS) if unit in daily), None),
        windows=windows,
    )


async def _checkout(ask: Ask[CheckoutBody]) -> Checkout:
    url, session_id = await subscribe(ask.runtime, ask.caller, ask.headers, ask.given.tier)
    return Checkout(url=url, session_id=session_id)


async def _portal(ask: Ask[Nothing]) -> Portal:
    return Portal(url=await portal(ask.runtime, ask.caller, ask.headers))


DOCUMENT = Document(
    name="Gateway: tenant",
    shape=lambda headers: TYPED,
    errors=TypedError,
    operations=(
        Operation("GET", "/tenant/keys", "The workspace's keys, newest first.", Nothing, TenantKeys, _list_keys),
        Operation("POST", "/tenant/keys", "Mint a key; its secret is shown this once.", TenantKeyBody, MintedKey, _make_key, status=201, refusals=(400, 409, 413, 422)),
        Operation("GET", "/tenant/keys/{id}", "One key's metadata.", Nothing, TenantKey, _find_key, refusals=(404,)),
        Operation(
            "DELETE", "/tenant/keys/{id}", "Revoke a key: its next request fails, streams under way go on.", Nothing, None, _revoke_key, status=204, refusals=(404,)
        ),
        Operation("GET", "/tenant/usage", "Usage by day.", UsageQuery, TenantUsage, _usage, refusals=(400,)),
        Operation("GET", "/tenant/subscription", "The tier and where its quotas stand.", Nothing, TenantSubscription, _subscription),
        Operation("GET", "/tenant/credits", "Prepaid credit.", Nothing, TenantCredits, _credits),
        Operation(
            "POST", "/tenant/billing/topup", "Begin a top-up, to be paid at Stripe.", TopUpBody, Checkout, _top_up, refusals=(400, 413, 422, 502, 503)
        ),
        Operation(
            "POST", "/tenant/billing/checkout", "Subscribe to a tier, at Stripe.", CheckoutBody, Checkout, _checkout, refusals=(400, 404, 409, 413, 422, 502, 503)
        ),
        Operation("POST", "/tenant/billing/portal", "Manage cards, invoices and subscriptions, at Stripe.", Nothing, Portal, _portal, refusals=(400, 413, 422, 502, 503)),
    ),
)
