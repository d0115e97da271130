"""GET /v1/receipts/{id}: everything about one call, for whoever may see it; beyond the documents, so it is written as document 4 writes."""

import contextlib
from datetime import datetime
from uuid import UUID

from pydantic.json_schema import SkipJsonSchema

from domain.errors import NotFound
from domain.money.amounts import picos_as_usd
from domain.money.catalogue import PriceVersion
from domain.serving import receipts
from domain.serving.receipts import AttemptView, CallState, Clamp, ClampReason, FundingSource, Receipt, ReceiptLine
from models.enums import ApiKeyMode, Bucket, HoldState, LedgerAccountKind, TransferKind, UsageOutcome
from rest.doors import Ask, Document, Operation
from rest.fields import LEFT_OUT, Nothing, Told
from rest.shapes import AnthropicError, OpenAIError, of_dialect


class ToldClamp(Told):
    """What the output was lowered to so that the call could be afforded; the client's own bound is null where it set none."""

    requested_max_tokens: int | None
    allowed_max_tokens: int
    reason: ClampReason


class ToldAttempt(Told):
    """One upstream try: `usage` by bucket, without zeros; what the upstream charged is told to the operator alone."""

    id: UUID
    number: int
    provider: str
    upstream_model: str
    reason: str
    outcome: UsageOutcome
    http_status: int | None
    error_code: str | None
    usage: dict[Bucket, int]
    charged: bool
    upstream_cost_usd: str | SkipJsonSchema[None] = LEFT_OUT
    started_at: datetime
    first_byte_at: datetime | None
    finished_at: datetime


class ToldPrice(Told):
    """A version of a model's prices; it never changes."""

    id: UUID
    model: str
    effective_from: datetime
    source: str


class ToldLine(Told):
    """One bucket at one price row: `quantity` times `usd` for `per` units is `amount_usd`, exactly."""

    bucket: Bucket
    quantity: int
    price_id: UUID
    usd: str
    per: int
    above_input_tokens: int | None
    service_tier: str | None
    geography: str | None
    amount_usd: str


class ToldMarkup(Told):
    """What the list value was multiplied with: `numerator` / `denominator`."""

    numerator: int
    denominator: int


class ToldHold(Told):
    """What was set aside while the call ran."""

    amount_micros: int
    extensions: int
    state: HoldState
    created_at: datetime
    expires_at: datetime
    closed_at: datetime | None


class ToldFunding(Told):
    """One source's part of the charge."""

    source: FundingSource
    amount_micros: int
    transfer_id: UUID | None


class ToldTransfer(Told):
    """One posting of the ledger: the amount left `debit` and entered `credit`."""

    id: UUID
    kind: TransferKind
    amount_micros: int
    debit: LedgerAccountKind
    credit: LedgerAccountKind
    reason: str | None
    created_at: datetime


class ToldTimings(Told):
    """When what happened; a later step is null until it happens, and for ever when it does not."""

    received_at: datetime
    admitted_at: datetime
    first_byte_at: datetime | None
    last_byte_at: datetime | None
    settled_at: datetime | None
    overhead_ms: float | None


class ToldReceipt(Told):
    """Everything about one call: why this model, what each try used, which price made which charge, who paid, and when."""

    id: UUID
    request_id: UUID
    state: CallState
    outcome: UsageOutcome | None
    http_status: int | None
    error_code: str | None
    mode: ApiKeyMode
    key_id: UUID | None
    endpoint: str
    streamed: bool
    requested_model: str
    model: str | None
    model_reason: str | None
    preset: str | None
    clamp: ToldClamp | None
    attempts: list[ToldAttempt]
    price: ToldPrice | None
    lines: list[ToldLine]
    list_micros: int
    markup: ToldMarkup | None
    charge_micros: int
    charge_usd: str
    upstream_cost_usd: str | SkipJsonSchema[None] = LEFT_OUT
    needs_review: bool
    idempotent: bool
    replays: int
    hold: ToldHold
    funding: list[ToldFunding]
    transfers: list[ToldTransfer]
    timings: ToldTimings


def _clamp(clamp: Clamp) -> ToldClamp:
    return ToldClamp(requested_max_tokens=clamp.requested, allowed_max_tokens=clamp.allowed, reason=clamp.reason)


def _attempt(attempt: AttemptView, *, operator: bool) -> ToldAttempt:
    return ToldAttempt(
        id=attempt.id,
        number=attempt.number,
        provider=attempt.upstream,
        upstream_model=attempt.model,
        reason=attempt.reason,
        outcome=attempt.outcome,
        http_status=attempt.http_status,
        error_code=attempt.error_code,
        usage=dict(attempt.quantities),
        charged=attempt.charged,
        upstream_cost_usd=picos_as_usd(attempt.cost_picousd) if operator else None,
        started_at=attempt.started_at,
        first_byte_at=attempt.first_byte_at,
        finished_at=attempt.finished_at,
    )


def _price(price: PriceVersion) -> ToldPrice:
    return ToldPrice(id=price.id, model=price.model, effective_from=price.effective_from, source=price.source)


def _line(line: ReceiptLine) -> ToldLine:
    row = line.line.row
    return ToldLine(
        bucket=line.line.bucket,
        quantity=line.line.quantity,
        price_id=line.price.id,
        usd=row.usd,
        per=row.per,
        above_input_tokens=row.above_input_tokens,
        service_tier=row.service_tier,
        geography=row.geography,
        amount_usd=picos_as_usd(line.line.picousd),
    )


def _told(receipt: Receipt, *, operator: bool) -> ToldReceipt:
    hold, timings = receipt.hold, receipt.timings
    return ToldReceipt(
        id=receipt.call_id,
        request_id=receipt.call_id,
        state=receipt.state,
        outcome=receipt.outcome,
        http_status=receipt.http_status,
        error_code=receipt.error_code,
        mode=receipt.mode,
        key_id=receipt.key_id,
        endpoint=receipt.endpoint,
        streamed=receipt.streamed,
        requested_model=receipt.requested_model,
        model=receipt.model,
        model_reason=receipt.model_reason,
        preset=receipt.preset,
        clamp=_clamp(receipt.clamp) if receipt.clamp else None,
        attempts=[_attempt(attempt, operator=operator) for attempt in receipt.attempts],
        price=_price(receipt.price) if receipt.price else None,
        lines=[_line(line) for line in receipt.lines],
        list_micros=receipt.list_microusd,
        markup=ToldMarkup(numerator=receipt.markup[0], denominator=receipt.markup[1]) if receipt.markup else None,
        charge_micros=receipt.charge_microusd,
        charge_usd=picos_as_usd(receipt.charge_picousd),
        upstream_cost_usd=picos_as_usd(receipt.upstream_cost_picousd) if operator else None,
        needs_review=receipt.needs_review,
        idempotent=receipt.idempotent,
        replays=receipt.replays,
        hold=ToldHold(
            amount_micros=hold.amount_microusd,
            extensions=hold.extensions,
            state=hold.state,
            created_at=hold.created_at,
            expires_at=hold.expires_at,
            closed_at=hold.closed_at,
        ),
        funding=[
            ToldFunding(source=part.source, amount_micros=part.amount_microusd, transfer_id=part.transfer.id if part.transfer else None) for part in receipt.funding
        ],
        transfers=[
            ToldTransfer(
                id=transfer.id,
                kind=transfer.kind,
                amount_micros=transfer.amount,
                debit=receipt.accounts[transfer.debit_id],
                credit=receipt.accounts[transfer.credit_id],
                reason=transfer.reason,
                created_at=transfer.created_at,
            )
            for transfer in receipt.transfers
        ],
        timings=ToldTimings(
            received_at=timings.received_at,
            admitted_at=timings.admitted_at,
            first_byte_at=timings.first_byte_at,
            last_byte_at=timings.last_byte_at,
            settled_at=timings.settled_at,
            overhead_ms=timings.overhead_ms,
        ),
    )


async def _find(ask: Ask[Nothing]) -> ToldReceipt:
    with contextlib.suppress(ValueError):
        receipt = await receipts.find(ask.caller, UUID(ask.path["id"]), ask.runtime.book)
        return _told(receipt, operator=ask.caller.operator)
    raise NotFound("call", path=("id",))


DOCUMENT = Document(
    name="Gateway: receipts",
    shape=of_dialect,
    errors=AnthropicError | OpenAIError,
    api_key_field=True,
    operations=(
        Operation(
            "GET",
            "/v1/receipts/{id}",
            "Everything about one call, by the id that its answer told as `x-request-id`: for the key that made it, and for whoever may read usage.",
            Nothing,
            ToldReceipt,
            _find,
            refusals=(404,),
        ),
    ),
)
