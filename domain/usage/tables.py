"""The columns of exports: ours, and those of the FinOps Open Cost and Usage Specification (https://focus.finops.org, version 1.2)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec

from domain.money.ledger import Entry
from domain.usage.metrics import Dimension, Metrics, Values
from domain.usage.records import RecordView
from domain.usage.windows import Bucket
from models.enums import TransferKind, UsageRecordStatus

Cell = str | int | Decimal | datetime | bool | None


class Kind(StrEnum):
    """What a column holds; DOLLARS is exact, never a float."""

    TEXT = "text"
    INTEGER = "integer"
    DOLLARS = "dollars"
    INSTANT = "instant"
    BOOLEAN = "boolean"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, what it holds, and how it is read from a row's thing."""

    name: str
    kind: Kind
    read: Callable[[Any], Cell]


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One bucket of one group of a usage report."""

    workspace_id: UUID
    bucket: Bucket
    values: Values
    metrics: Metrics


def dollars(microusd: int) -> Decimal:
    """Return microdollars as dollars, exactly."""
    return Decimal(microusd).scaleb(-6)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _month(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _next_month(at: datetime) -> datetime:
    start = _month(at)
    return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)


def _column(name: str, kind: Kind, read: Callable[[Any], Cell]) -> Column:
    return Column(name, kind, read)


def _records() -> list[Column]:
    def tokens(name: str) -> Callable[[RecordView], Cell]:
        return lambda record: getattr(record.tokens, name) if record.tokens else None

    return [
        _column("id", Kind.TEXT, lambda record: str(record.id)),
        _column("createdAt", Kind.INSTANT, lambda record: record.at),
        _column("status", Kind.TEXT, lambda record: record.status.name),
        _column("mode", Kind.TEXT, lambda record: record.mode.name),
        _column("outcome", Kind.TEXT, lambda record: record.outcome.name),
        _column("httpStatus", Kind.INTEGER, lambda record: record.http_status),
        _column("errorCode", Kind.TEXT, lambda record: record.error_code),
        _column("requestId", Kind.TEXT, lambda record: record.request_id),
        _column("apiKeyId", Kind.TEXT, lambda record: _text(record.key_id)),
        _column("userId", Kind.TEXT, lambda record: _text(record.user_id)),
        _column("appId", Kind.TEXT, lambda record: _text(record.app_id)),
        _column("endUserId", Kind.TEXT, lambda record: record.end_user),
        _column("conversationId", Kind.TEXT, lambda record: record.conversation),
        _column("apiName", Kind.TEXT, lambda record: record.api_name),
        _column("endpoint", Kind.TEXT, lambda record: record.endpoint),
        _column("preset", Kind.TEXT, lambda record: record.preset),
        _column("requestedModel", Kind.TEXT, lambda record: record.requested_model),
        _column("model", Kind.TEXT, lambda record: record.model),
        _column("provider", Kind.TEXT, lambda record: record.provider),
        _column("streamed", Kind.BOOLEAN, lambda record: record.streamed),
        _column("units", Kind.INTEGER, lambda record: record.units),
        _column("inputTokens", Kind.INTEGER, tokens("input")),
        _column("outputTokens", Kind.INTEGER, tokens("output")),
        _column("cacheReadTokens", Kind.INTEGER, tokens("cache_read")),
        _column("cacheWrite5mTokens", Kind.INTEGER, tokens("cache_write_5m")),
        _column("cacheWrite1hTokens", Kind.INTEGER, tokens("cache_write_1h")),
        _column("reasoningTokens", Kind.INTEGER, tokens("reasoning")),
        _column("language", Kind.TEXT, lambda record: record.language),
        _column("characters", Kind.INTEGER, lambda record: record.characters),
        _column("lines", Kind.INTEGER, lambda record: record.lines),
        _column("costMicroUsd", Kind.INTEGER, lambda record: record.charge_microusd),
        _column("listValueMicroUsd", Kind.INTEGER, lambda record: record.list_microusd),
        _column("latencyMs", Kind.INTEGER, lambda record: record.latency_ms),
        _column("timeToFirstTokenMs", Kind.INTEGER, lambda record: record.first_token_ms),
        _column("needsReview", Kind.BOOLEAN, lambda record: record.needs_review),
        _column("tags", Kind.TEXT, lambda record: _json(record.tags)),
    ]


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


METRICS: Final[Mapping[str, Callable[[Metrics], int]]] = {
    "requests": lambda metrics: metrics.requests,
    "errors": lambda metrics: metrics.errors,
    "units": lambda metrics: metrics.units,
    "tokens": lambda metrics: metrics.tokens,
    "inputTokens": lambda metrics: metrics.input_tokens,
    "outputTokens": lambda metrics: metrics.output_tokens,
    "cacheReadTokens": lambda metrics: metrics.cache_read_tokens,
    "cacheWriteTokens": lambda metrics: metrics.cache_write_tokens,
    "reasoningTokens": lambda metrics: metrics.reasoning_tokens,
    "characters": lambda metrics: metrics.characters,
    "lines": lambda metrics: metrics.lines,
    "costMicroUsd": lambda metrics: metrics.charge_microusd,
    "listValueMicroUsd": lambda metrics: metrics.list_microusd,
}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def _report(by: Sequence[Dimension]) -> list[Column]:
    def value(dimension: Dimension) -> Callable[[ReportRow], Cell]:
        return lambda row: _text(row.values.get(dimension))

    def metric(read: Callable[[Metrics], int]) -> Callable[[ReportRow], Cell]:
        return lambda row: read(row.metrics)

    return [
        _column("start", Kind.INSTANT, lambda row: row.bucket.start),
        _column("end", Kind.INSTANT, lambda row: row.bucket.end),
        *(_column(_camel(dimension.value), Kind.TEXT, value(dimension)) for dimension in by),
        *(_column(name, Kind.INTEGER, metric(read)) for name, read in METRICS.items()),
    ]


def _statement() -> list[Column]:
    return [
        _column("id", Kind.TEXT, lambda entry: str(entry.transfer.id)),
        _column("createdAt", Kind.INSTANT, lambda entry: entry.transfer.created_at),
        _column("kind", Kind.TEXT, lambda entry: entry.transfer.kind.name),
        _column("changeMicroUsd", Kind.INTEGER, lambda entry: entry.change),
        _column("balanceAfterMicroUsd", Kind.INTEGER, lambda entry: entry.balance_after),
        _column("idempotencyKey", Kind.TEXT, lambda entry: entry.transfer.idempotency_key),
        _column("callId", Kind.TEXT, lambda entry: _text(entry.transfer.call_id)),
        _column("reason", Kind.TEXT, lambda entry: entry.transfer.reason),
        _column("actorKind", Kind.TEXT, lambda entry: entry.transfer.actor.kind.name),
        _column("actorName", Kind.TEXT, lambda entry: entry.transfer.actor.name),
    ]


@dataclass(frozen=True, slots=True)
class _Focus:
    """A row as FOCUS sees it."""

    account: UUID
    start: datetime
    end: datetime
    billed: int
    listed: int
    category: str
    description: str
    charge_class: str | None = None
    quantity: int | None = None
    unit: str | None = None
    publisher: str | None = None
    resource: tuple[str, str] | None = None
    sku: str | None = None
    tags: Mapping[str, str] | None = None


def _focus(of: Callable[[Any], _Focus]) -> list[Column]:
    def read(pick: Callable[[_Focus], Cell]) -> Callable[[Any], Cell]:
        return lambda thing: pick(of(thing))

    return [
        _column("BilledCost", Kind.DOLLARS, read(lambda row: dollars(row.billed))),
        _column("BillingAccountId", Kind.TEXT, read(lambda row: str(row.account))),
        _column("BillingCurrency", Kind.TEXT, read(lambda _: "USD")),
        _column("BillingPeriodStart", Kind.INSTANT, read(lambda row: _month(row.start))),
        _column("BillingPeriodEnd", Kind.INSTANT, read(lambda row: _next_month(row.start))),
        _column("ChargeCategory", Kind.TEXT, read(lambda row: row.category)),
        _column("ChargeClass", Kind.TEXT, read(lambda row: row.charge_class)),
        _column("ChargeDescription", Kind.TEXT, read(lambda row: row.description)),
        _column("ChargeFrequency", Kind.TEXT, read(lambda row: "Usage-Based" if row.category == "Usage" else "One-Time")),
        _column("ChargePeriodStart", Kind.INSTANT, read(lambda row: row.start)),
        _column("ChargePeriodEnd", Kind.INSTANT, read(lambda row: row.end)),
        _column("ConsumedQuantity", Kind.INTEGER, read(lambda row: row.quantity)),
        _column("ConsumedUnit", Kind.TEXT, read(lambda row: row.unit)),
        _column("ContractedCost", Kind.DOLLARS, read(lambda row: dollars(row.billed))),
        _column("EffectiveCost", Kind.DOLLARS, read(lambda row: dollars(row.billed))),
        _column("InvoiceIssuerName", Kind.TEXT, read(lambda _: "Tallygate")),
        _column("ListCost", Kind.DOLLARS, read(lambda row: dollars(row.listed))),
        _column("PricingCategory", Kind.TEXT, read(lambda row: "Standard" if row.category == "Usage" else None)),
        _column("ProviderName", Kind.TEXT, read(lambda _: "Tallygate")),
        _column("PublisherName", Kind.TEXT, read(lambda row: row.publisher)),
        _column("ResourceId", Kind.TEXT, read(lambda row: row.resource[1] if row.resource else None)),
        _column("ResourceType", Kind.TEXT, read(lambda row: row.resource[0] if row.resource else None)),
        _column("ServiceCategory", Kind.TEXT, read(lambda _: "AI and Machine Learning")),
        _column("ServiceName", Kind.TEXT, read(lambda _: "Inference")),
        _column("SkuId", Kind.TEXT, read(lambda row: row.sku)),
        _column("Tags", Kind.TEXT, read(lambda row: None if row.tags is None else _json(row.tags))),
    ]


def _focus_of_record(record: RecordView) -> _Focus:
    resource = ("App", str(record.app_id)) if record.app_id else ("API key", str(record.key_id)) if record.key_id else None
    return _Focus(
        account=record.workspace_id,
        start=record.at,
        end=max(record.recorded_at, record.at),
        billed=record.charge_microusd,
        listed=record.list_microusd,
        category="Usage",
        description=f"{record.api_name} {record.endpoint}",
        charge_class=None if record.status is UsageRecordStatus.ACTIVE else "Correction",
        quantity=record.tokens.total if record.tokens else record.units,
        unit="Tokens" if record.tokens else "Units",
        publisher=record.provider,
        resource=resource,
        sku=record.model,
        tags=record.tags,
    )


def _focus_of_report(row: ReportRow) -> _Focus:
    app, key = row.values.get(Dimension.APP), row.values.get(Dimension.API_KEY)
    return _Focus(
        account=row.workspace_id,
        start=row.bucket.start,
        end=row.bucket.end,
        billed=row.metrics.charge_microusd,
        listed=row.metrics.list_microusd,
        category="Usage",
        description="Inference",
        quantity=row.metrics.tokens,
        unit="Tokens",
        publisher=_text(row.values.get(Dimension.PROVIDER)),
        resource=("App", str(app)) if app else ("API key", str(key)) if key else None,
        sku=_text(row.values.get(Dimension.MODEL)),
    )


CATEGORIES: Final = {
    TransferKind.TOP_UP: "Purchase",
    TransferKind.CHARGE: "Usage",
    TransferKind.LATE: "Usage",
    TransferKind.GRANT: "Credit",
}


def _focus_of_entry(entry: Entry) -> _Focus:
    category = CATEGORIES.get(entry.transfer.kind, "Adjustment")
    return _Focus(
        account=entry.transfer.workspace_id,
        start=entry.transfer.created_at,
        end=entry.transfer.created_at,
        billed=-entry.change,
        listed=-entry.change,
        category=category,
        description=entry.transfer.reason or entry.transfer.kind.name.replace("_", " ").capitalize(),
        charge_class="Correction" if category == "Adjustment" else None,
    )


def _audit() -> list[Column]:
    return [
        _column("id", Kind.TEXT, lambda event: str(event.id)),
        _column("createdAt", Kind.INSTANT, lambda event: event.created_at),
        _column("action", Kind.TEXT, lambda event: event.action),
        _column("actorKind", Kind.TEXT, lambda event: event.actor.kind.name),
        _column("actorId", Kind.TEXT, lambda event: _text(event.actor.id)),
        _column("actorName", Kind.TEXT, lambda event: event.actor.name),
        _column("subjectType", Kind.TEXT, lambda event: event.subject[0] if event.subject else None),
        _column("subjectId", Kind.TEXT, lambda event: event.subject[1] if event.subject else None),
        _column("changes", Kind.TEXT, lambda event: _json(event.changes)),
        _column("reason", Kind.TEXT, lambda event: event.reason),
        _column("requestId", Kind.TEXT, lambda event: event.request_id),
        _column("address", Kind.TEXT, lambda event: event.address),
    ]


AUDIT: Final = tuple(_audit())
RECORDS: Final = tuple(_records())
RECORDS_FOCUS: Final = tuple(_focus(_focus_of_record))
STATEMENT: Final = tuple(_statement())
STATEMENT_FOCUS: Final = tuple(_focus(_focus_of_entry))
REPORT_FOCUS: Final = tuple(_focus(_focus_of_report))


def report(by: Sequence[Dimension]) -> tuple[Column, ...]:
    """Return the columns of a usage report: its bucket, its dimensions, its metrics."""
    return tuple(_report(by))
