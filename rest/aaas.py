"""Document 0: keys, credit and usage of a workspace, in camelCase and microdollars; its apps are in `rest/apps.py`."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from domain.access import keys
from domain.errors import NotFound
from domain.money import ledger
from domain.usage import measure, records, windows
from domain.usage.metrics import CALLS, Dimension, Question, Values
from domain.usage.windows import Granularity, RelativeRange, Window
from models.enums import ApiKeyStatus, Scope, TransferKind
from rest import apps, client_tokens, deploys, lists
from rest.apps_named import named_apps
from rest.doors import Ask, Document, Operation
from rest.fields import LEFT_OUT, Asked, CamelTold, Integer, Nothing
from rest.keys import every_key, make_key, parse_key_id
from rest.shapes import PLAIN, PlainError
from rest.topups import top_up

DEFAULT_TRANSACTIONS, MOST_TRANSACTIONS = 50, 200
LARGEST_INTEGER = 2**53 - 1
ZONE = "UTC"
"""The document names no time zone."""
RANGES = {"24h": RelativeRange.LAST_24_HOURS, "7d": RelativeRange.LAST_7_DAYS, "30d": RelativeRange.LAST_30_DAYS}


class UsageQuery(Asked):
    """Which window to report; all end now."""

    range: Literal["24h", "7d", "30d"] = "7d"


class UsageSummary(CamelTold):
    """All usage of a window."""

    requests: int
    tokens: int
    actual_cost_microusd: int
    errors: int


class ModelUsage(CamelTold):
    """Usage of one model; `model` is empty for records that name none."""

    model: str
    requests: int
    tokens: int
    actual_cost_microusd: int


class AppUsage(CamelTold):
    """Usage of one app; `appId` is null for usage without an app."""

    app_id: str | None
    requests: int
    tokens: int
    actual_cost_microusd: int


class UsageBucket(CamelTold):
    """Usage of one hour or day, in UTC; `timeBucket` is its first instant."""

    time_bucket: datetime
    requests: int
    tokens: int
    actual_cost_microusd: int
    errors: int


class ModelUsageBucket(UsageBucket):
    """Usage of one model in one hour or day; the four kinds of tokens add up to `tokens`, `cacheHitRate` is 0 to 1."""

    model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_hit_rate: float


class ListedKey(CamelTold):
    """A key as the list shows it; `keyHash` is SHA-256 of its newest secret."""

    id: UUID
    created_at: datetime
    key_hash: str
    last_used_at: datetime | None
    name: str | None
    status: ApiKeyStatus
    suffix: str


class KeyBody(Asked):
    """A key to make."""

    name: str | None = None


class MadeKey(CamelTold):
    """A key that was made; `key` is its secret, shown this once."""

    id: UUID
    key: str
    created_at: datetime
    name: str | None


class CreditBalance(CamelTold):
    """Prepaid credit in microdollars: `availableMicrousd` is what can be spent, after what calls under way hold."""

    balance_microusd: int
    available_microusd: int
    held_microusd: int
    currency: str
    updated_at: datetime


class CheckoutBody(Asked):
    """How much credit to buy, in whole US dollars."""

    amount_usd: Annotated[int, Field(alias="amountUsd", ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)]


class Checkout(CamelTold):
    """The page to send the customer to, and Stripe's id of it."""

    url: str
    session_id: str


class TransactionsQuery(Asked):
    """How many transactions to list."""

    limit: Integer = Field(default=DEFAULT_TRANSACTIONS, ge=1, le=MOST_TRANSACTIONS)


class Transaction(CamelTold):
    """One transfer as the account sees it: positive adds, negative takes away; `createdAt` in milliseconds since 1970."""

    idempotency_key: str
    type: TransferKind
    amount_microusd: int
    created_at: int
    tokens: int
    model: str | SkipJsonSchema[None] = LEFT_OUT
    reason: str | SkipJsonSchema[None] = LEFT_OUT


def _window(ask: Ask[UsageQuery]) -> Window:
    return windows.resolve(RANGES[ask.given.range], ZONE, ask.caller.at)


def _unit(ask: Ask[UsageQuery]) -> Granularity:
    return Granularity.HOUR if ask.given.range == "24h" else Granularity.DAY


async def _usage_breakdown(ask: Ask[UsageQuery]) -> list[ModelUsage]:
    return [
        ModelUsage(
            model=_model(group.values),
            requests=group.metrics.requests,
            tokens=group.metrics.tokens,
            actual_cost_microusd=group.metrics.charge_microusd,
        )
        for group in await measure.groups(ask.caller, _window(ask), Question(by=(Dimension.MODEL,), first=None, columns=CALLS))
    ]


async def _usage_app_breakdown(ask: Ask[UsageQuery]) -> list[AppUsage]:
    groups = await measure.groups(ask.caller, _window(ask), Question(by=(Dimension.APP,), first=None, columns=CALLS))
    names = await named_apps(ask.caller, [group.values for group in groups])
    return [
        AppUsage(
            app_id=name.id if name else None,
            requests=group.metrics.requests,
            tokens=group.metrics.tokens,
            actual_cost_microusd=group.metrics.charge_microusd,
        )
        for group, name in zip(groups, names, strict=True)
    ]


async def _usage_time_series(ask: Ask[UsageQuery]) -> list[UsageBucket]:
    return [
        UsageBucket(
            time_bucket=point.bucket.start,
            requests=point.metrics.requests,
            tokens=point.metrics.tokens,
            actual_cost_microusd=point.metrics.charge_microusd,
            errors=point.metrics.errors,
        )
        for point in await measure.series(ask.caller, _window(ask), _unit(ask), columns=CALLS)
    ]


async def _usage_model_time_series(ask: Ask[UsageQuery]) -> list[ModelUsageBucket]:
    series = await measure.series_by(ask.caller, _window(ask), _unit(ask), Question(by=(Dimension.MODEL,), first=None, columns=CALLS))
    return [
        ModelUsageBucket(
            time_bucket=point.bucket.start,
            model=_model(line.values),
            requests=point.metrics.requests,
            tokens=point.metrics.tokens,
            actual_cost_microusd=point.metrics.charge_microusd,
            errors=point.metrics.errors,
            input_tokens=point.metrics.input_tokens,
            output_tokens=point.metrics.output_tokens,
            cache_read_tokens=point.metrics.cache_read_tokens,
            cache_write_tokens=point.metrics.cache_write_tokens,
            cache_hit_rate=point.metrics.cache_hit_rate or 0.0,
        )
        for points in zip(*(line.points for line in series), strict=True)
        for line, point in zip(series, points, strict=True)
    ]


def _model(values: Values) -> str:
    return str(values.get(Dimension.MODEL) or "")


async def _usage_summary(ask: Ask[UsageQuery]) -> UsageSummary:
    used = await measure.totals(ask.caller, _window(ask), columns=CALLS)
    return UsageSummary(requests=used.requests, tokens=used.tokens, actual_cost_microusd=used.charge_microusd, errors=used.errors)


async def _list_keys(ask: Ask[Nothing]) -> list[ListedKey]:
    return [
        ListedKey(
            id=key.id,
            created_at=key.created_at,
            key_hash=key.secrets[0].fingerprint,
            last_used_at=key.last_used_at,
            name=key.name,
            status=key.status,
            suffix=key.secrets[0].suffix,
        )
        for key in await every_key(ask.caller)
    ]


async def _make_key(ask: Ask[KeyBody]) -> MadeKey:
    key, secret = await make_key(ask, ask.given.name)
    return MadeKey(id=key.id, key=secret, created_at=key.created_at, name=key.name)


async def _delete_key(ask: Ask[Nothing]) -> None:
    ask.caller.require(Scope.KEYS_WRITE)
    try:
        await keys.revoke(ask.caller, parse_key_id(ask.path["id"]))
    except NotFound:
        return  # a key that is absent, or another's, is told from none of ours: 204 as well


async def _balance(ask: Ask[Nothing]) -> CreditBalance:
    balance = await ledger.balance(ask.caller.require(Scope.BILLING_READ))
    return CreditBalance(
        balance_microusd=balance.balance,
        available_microusd=balance.available,
        held_microusd=balance.held,
        currency="USD",
        updated_at=balance.updated_at,
    )


async def _checkout(ask: Ask[CheckoutBody]) -> Checkout:
    url, session_id = await top_up(ask.runtime, ask.caller, ask.headers, ask.given.amount_usd * 1_000_000, path="amountUsd")
    return Checkout(url=url, session_id=session_id)


async def _transactions(ask: Ask[TransactionsQuery]) -> list[Transaction]:
    entries = await lists.first(lambda page: ledger.statement(ask.caller, page), lambda entry: entry.transfer.id, most=ask.given.limit)
    calls = [entry.transfer.call_id for entry in entries if entry.transfer.call_id is not None]
    sees_usage = Scope.USAGE_READ in ask.caller.scopes
    used = await records.find_many(ask.caller, calls) if calls and sees_usage else {}
    told = []
    for entry in entries:
        transfer = entry.transfer
        record = used.get(transfer.call_id) if transfer.call_id is not None else None
        told.append(
            Transaction(
                idempotency_key=transfer.idempotency_key,
                type=transfer.kind,
                amount_microusd=entry.change,
                created_at=int(transfer.created_at.timestamp() * 1000),
                tokens=record.tokens.total if record is not None and record.tokens is not None else 0,
                model=record.model if record is not None else None,
                reason=transfer.reason,
            )
        )
    return told


DOCUMENT = Document(
    name="AaaS",
    shape=lambda headers: PLAIN,
    errors=PlainError,
    operations=(
        Operation("GET", "/v1/usage/summary", "Usage of a window, in one.", UsageQuery, UsageSummary, _usage_summary, refusals=(400,)),
        Operation("GET", "/v1/usage/breakdown", "Usage of a window by model.", UsageQuery, list[ModelUsage], _usage_breakdown, refusals=(400,)),
        Operation("GET", "/v1/usage/app-breakdown", "Usage of a window by app.", UsageQuery, list[AppUsage], _usage_app_breakdown, refusals=(400,)),
        Operation(
            "GET", "/v1/usage/time-series", "Usage of a window by hour or day.", UsageQuery, list[UsageBucket], _usage_time_series, refusals=(400,)
        ),
        Operation(
            "GET",
            "/v1/usage/model-time-series",
            "Usage of a window by hour or day, and model.",
            UsageQuery,
            list[ModelUsageBucket],
            _usage_model_time_series,
            refusals=(400,),
        ),
        Operation("GET", "/v1/keys", "The workspace's keys, newest first.", Nothing, list[ListedKey], _list_keys),
        Operation("POST", "/v1/keys", "Make a key; its secret is shown this once.", KeyBody, MadeKey, _make_key, status=201, refusals=(400, 409, 413, 422)),
        Operation("DELETE", "/v1/keys/{id}", "Revoke a key; without effect when there is none.", Nothing, None, _delete_key, status=204),
        Operation("GET", "/v1/credits/balance", "Prepaid credit.", Nothing, CreditBalance, _balance),
        Operation(
            "POST", "/v1/credits/checkout", "Begin a top-up, to be paid at Stripe.", CheckoutBody, Checkout, _checkout, refusals=(400, 413, 422, 502, 503)
        ),
        Operation(
            "GET", "/v1/credits/transactions", "What changed the credit, newest first.", TransactionsQuery, list[Transaction], _transactions, refusals=(400,)
        ),
        *deploys.OPERATIONS,
        *apps.OPERATIONS,
        *client_tokens.OPERATIONS,
    ),
)
