"""Receipts: how one call was admitted, relayed, metered, charged and paid."""

import datetime
import decimal
from typing import TYPE_CHECKING, Annotated, Self
from uuid import UUID

import strawberry
from strawberry import field

from domain.money import amounts
from domain.serving import receipts as domain
from domain.serving.receipts import AttemptView, CallState, ClampReason, FundingSource
from domain.serving.receipts import Receipt as View
from models import enums
from models.enums import Bucket, Scope
from resolvers import catalogue, upstreams
from resolvers import receipts as resolvers
from schema import ids
from schema.access import requires
from schema.amounts import Money
from schema.billing import TierSubscription
from schema.catalogue import Model, Price, PriceRow, model_named
from schema.context import Info
from schema.fields import resolved
from schema.grants import Grant
from schema.ledger import Transfer
from schema.nodes import Failure, Node
from schema.presets import PresetVersion, version_named
from schema.records import TokenCounts, UsageRecord
from schema.scalars import SafeInt

if TYPE_CHECKING:
    from schema.upstreams import Upstream

FAILURES = {
    "client_gone": "The client left before the end.",
    "credit_exhausted": "The balance ended in the middle of the answer.",
    "interrupted": "The gateway's process ended, or lost its database, in the middle.",
    "shutdown": "The gateway was restarted in the middle.",
    "stale_connection": "The provider closed a kept connection as the request was sent on it.",
    "upstream_broken": "The provider broke off before its answer was whole.",
    "upstream_cut": "The provider broke off in the middle of its answer.",
    "upstream_error": "The provider told an error in the middle of its answer.",
    "upstream_garbage": "The provider's answer could not be read.",
    "upstream_timeout": "The provider did not answer in time.",
    "internal": "The gateway failed.",
}
LASTING = ("client_gone", "credit_exhausted")
"""What trying again does not help."""


@strawberry.type(description="What a call was lowered to.")
class Clamp:
    """As the contract has it."""

    requested_max_tokens: int = field(description="The most output tokens the caller asked for.")
    allowed_max_tokens: int = field(description="The most output tokens it was given.")
    reason: ClampReason = field(description="What bounded it.")


@strawberry.type(description="One bucket of a call at one price row. Quantity times rate is the amount, exactly.")
class ReceiptLine:
    """As the contract has it."""

    bucket: enums.Bucket = field(description="The bucket.")
    quantity: SafeInt = field(description="How much.")
    price: Price = field(description="The price version.")
    row: PriceRow = field(description="The row of it.")
    amount_usd: decimal.Decimal = field(description="The amount in dollars, exact, before the markup.")

    @classmethod
    def of(cls, line: domain.ReceiptLine) -> Self:
        """The line as GraphQL shows it."""
        return cls(
            bucket=line.line.bucket,
            quantity=SafeInt(line.line.quantity),
            price=Price.of(line.price),
            row=PriceRow.of(line.line.row),
            amount_usd=decimal.Decimal(amounts.picos_as_usd(line.line.picousd)),
        )


@strawberry.type(description="Money, or a place in a quota, that a call under way has set aside.")
class Hold:
    """As the contract has it."""

    amount: Money = field(description="How much money; 0 for a quota, a free model or a test key.")
    extensions: int = field(description="How often a stream extended it, an instalment at a time, ahead of what it delivered.")
    state: enums.HoldState = field(description="Where it stands.")
    created_at: datetime.datetime = field(description="When it was opened.")
    expires_at: datetime.datetime = field(description="When a sweep ends it, should the call not.")
    closed_at: datetime.datetime | None = field(description="When it was closed.")

    @classmethod
    def of(cls, hold: domain.HoldView) -> Self:
        """The hold as GraphQL shows it."""
        return cls(
            amount=Money.of(hold.amount_microusd),
            extensions=hold.extensions,
            state=hold.state,
            created_at=hold.created_at,
            expires_at=hold.expires_at,
            closed_at=hold.closed_at,
        )


@strawberry.type(description="One source's part of a charge.")
class Funding:
    """As the contract has it."""

    source: FundingSource = field(description="The source.")
    amount: Money = field(description="Its part; 0 for a quota, which pays in tokens or calls.")
    transfer: Transfer | None = field(description="The transfer that took it; null for a quota.")
    of_receipt: strawberry.Private[View]
    account_id: strawberry.Private[UUID | None]

    @resolved("The subscription, for a quota.")
    async def subscription(self) -> TierSubscription | None:
        """Read the one that entitled the workspace when the call came; several add their quotas up, and the first stands for them."""
        if self.source is not FundingSource.QUOTA:
            return None
        found = await resolvers.entitling(self.of_receipt)
        return TierSubscription.of(found) if found else None

    @resolved("The grant, for a grant.")
    async def grant(self) -> Grant | None:
        """Read it."""
        if self.source is not FundingSource.GRANT or self.account_id is None:
            return None
        return Grant.of(await resolvers.grant(self.of_receipt, self.account_id))

    @classmethod
    def of(cls, receipt: View, part: domain.Funding) -> Self:
        """The part as GraphQL shows it."""
        transfer = Transfer.of(part.transfer) if part.transfer else None
        return cls(source=part.source, amount=Money.of(part.amount_microusd), transfer=transfer, of_receipt=receipt, account_id=part.account_id)


@strawberry.type(description="A fraction that a list value is multiplied with, once, to make the charge.")
class Markup:
    """As the contract has it."""

    numerator: int = field(description="The numerator.")
    denominator: int = field(description="The denominator, never 0.")


@strawberry.type(description="When what happened to a call. Later steps are null until they happen, and for ever when they do not.")
class CallTimings:
    """As the contract has it."""

    received_at: datetime.datetime = field(description="The request was read.")
    admitted_at: datetime.datetime | None = field(description="The call and its hold were durable.")
    first_byte_at: datetime.datetime | None = field(description="The first byte went to the caller.")
    last_byte_at: datetime.datetime | None = field(description="The last byte went to the caller.")
    settled_at: datetime.datetime | None = field(description="The usage event and its transfers were durable.")
    overhead_ms: float | None = field(description="Milliseconds that the gateway itself added before the first byte.")

    @classmethod
    def of(cls, timings: domain.Timings) -> Self:
        """The timings as GraphQL shows them."""
        return cls(
            received_at=timings.received_at,
            admitted_at=timings.admitted_at,
            first_byte_at=timings.first_byte_at,
            last_byte_at=timings.last_byte_at,
            settled_at=timings.settled_at,
            overhead_ms=timings.overhead_ms,
        )


@strawberry.type(description="One upstream try of a call.")
class Attempt(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    number: int = field(description="1 for the first try of the call, then 2, and so on.")
    provider: str = field(description="The upstream provider.")
    upstream_model: str = field(description="The upstream's own name of the model.")
    reason: str = field(description="Why this upstream, for example `weight`, `sticky` or `fallback`.")
    outcome: enums.UsageOutcome | None = field(description="How it ended; null while it runs.")
    http_status: int | None = field(description="The HTTP status the upstream answered.")
    failure: Failure | None = field(description="Why it failed; null unless it failed.")
    tokens: TokenCounts | None = field(description="Tokens by kind; null when nothing was used.")
    charged: bool = field(description="Whether this is the try that the caller was charged for.")
    upstream_cost: Money | None = field(
        description="What the upstream charged. Requires scope `OPERATOR`.", extensions=requires(Scope.OPERATOR)
    )
    started_at: datetime.datetime = field(description="When it was sent.")
    first_byte_at: datetime.datetime | None = field(description="When its first byte came.")
    finished_at: datetime.datetime | None = field(description="When it ended.")
    of_call: strawberry.Private[View]
    shown: strawberry.Private[AttemptView]

    @resolved("The receipt of its call.")
    def receipt(self) -> "Receipt":
        """Show it."""
        return Receipt.of(self.of_call)

    @resolved("The upstream. Requires scope `OPERATOR`.", extensions=requires(Scope.OPERATOR))
    async def upstream(self, info: Info) -> Annotated["Upstream", strawberry.lazy("schema.upstreams")] | None:
        """Read what is known of it; nothing for one that is configured no more."""
        from schema.upstreams import Upstream  # it shows attempts itself

        found = await upstreams.named(info.context, self.provider)
        return Upstream.of(found) if found else None

    @resolved("The price version of that. Requires scope `OPERATOR`.", extensions=requires(Scope.OPERATOR))
    def upstream_price(self, info: Info) -> Price | None:
        """Read it in the book."""
        version = catalogue.price_of_id(info.context, self.shown.price_id) if self.shown.price_id else None
        return Price.of(version) if version else None

    @classmethod
    def of(cls, receipt: View, attempt: AttemptView) -> Self:
        """The try as GraphQL shows it."""
        return cls(
            id=ids.encode("Attempt", attempt.id),
            number=attempt.number,
            provider=attempt.upstream,
            upstream_model=attempt.model,
            reason=attempt.reason,
            outcome=attempt.outcome,
            http_status=attempt.http_status,
            failure=_failure(attempt),
            tokens=_tokens(attempt),
            charged=attempt.charged,
            upstream_cost=Money.of(attempt.cost_microusd),
            started_at=attempt.started_at,
            first_byte_at=attempt.first_byte_at,
            finished_at=attempt.finished_at,
            of_call=receipt,
            shown=attempt,
        )


def _failure(attempt: AttemptView) -> Failure | None:
    code = attempt.error_code
    if code is None:
        return None
    message = FAILURES.get(code, f"The provider answered {attempt.http_status}.")
    return Failure(code=code, message=message, retryable=code not in LASTING and attempt.http_status not in (400, 404, 413, 422))


def _tokens(attempt: AttemptView) -> TokenCounts | None:
    used = attempt.quantities
    kinds = (Bucket.UNCACHED_INPUT, Bucket.OUTPUT, Bucket.CACHE_READ, Bucket.CACHE_WRITE_5M, Bucket.CACHE_WRITE_1H)
    total = sum(used.get(bucket, 0) for bucket in kinds)
    if not total:
        return None
    return TokenCounts(
        input=SafeInt(used.get(Bucket.UNCACHED_INPUT, 0)),
        output=SafeInt(used.get(Bucket.OUTPUT, 0)),
        cache_read=SafeInt(used.get(Bucket.CACHE_READ, 0)),
        cache_write5m=SafeInt(used.get(Bucket.CACHE_WRITE_5M, 0)),
        cache_write1h=SafeInt(used.get(Bucket.CACHE_WRITE_1H, 0)),
        reasoning=SafeInt(used.get(Bucket.REASONING, 0)),
        total=SafeInt(total),
        source=attempt.source,
    )


@strawberry.type(
    description=(
        "Everything about one call: why this model, what every upstream try used, which price made which charge, who paid, and when. "
        "Written as the\n"
        "call goes and final once settled; what is corrected afterwards is in `transfers`."
    )
)
class Receipt(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    call_id: str = field(description="The call's ID, as a response header told it and `GET /v1/receipts/{id}` takes it.")
    request_id: str = field(description="The `X-Request-Id` of the call.")
    state: CallState = field(description="Where the call stands.")
    requested_model: str = field(description="The name the caller asked for, for example `auto`.")
    model_reason: str | None = field(description="Why this model and upstream: alias, route, fallback, stickiness.")
    attempts: list[Attempt] = field(description="Every upstream try, first to last; empty when the call was refused.")
    lines: list[ReceiptLine] = field(description="What the winning attempt used, at list price.")
    list_value: Money = field(description="What it is worth at list price, whoever paid.")
    charge: Money = field(description="What was charged when the call was settled; 0 where a tier's quota paid.")
    charge_usd: decimal.Decimal = field(
        description="The exact charge in dollars, before the workspace's carry made whole microdollars of it."
    )
    upstream_cost: Money | None = field(
        description="What the upstreams charged, over all attempts. Requires scope `OPERATOR`.", extensions=requires(Scope.OPERATOR)
    )
    hold: Hold | None = field(description="What was set aside while the call ran; null when the call was refused.")
    funding: list[Funding] = field(description="Who paid, in the order taken; the parts add up to `charge`.")
    transfers: list[Transfer] = field(description="What moved in the ledger, corrections included, oldest first.")
    timings: CallTimings = field(description="When what happened.")
    idempotent: bool = field(description="Whether the call came with an `Idempotency-Key`; the key itself is not kept.")
    replays: int = field(description="How often the answer was given again under that key, free of charge.")
    shown: strawberry.Private[View]

    @resolved("The usage event; null until the call is settled.")
    async def usage_record(self, info: Info) -> UsageRecord | None:
        """Load it."""
        record = await info.context.records.load(self.shown.call_id)
        return UsageRecord.of(record) if record else None

    @resolved("The model that answered; null when none did.")
    def model(self, info: Info) -> Model | None:
        """Read it in the book."""
        return model_named(info, self.shown.model)

    @resolved("The preset spliced in; null when none was.")
    def preset(self, info: Info) -> PresetVersion | None:
        """Find it."""
        return version_named(info, self.shown.preset)

    @resolved("What the list value was multiplied with; null when no rule applied.")
    def markup(self) -> Markup | None:
        """Tell it, as it was kept with the call."""
        return Markup(numerator=self.shown.markup[0], denominator=self.shown.markup[1]) if self.shown.markup else None

    @resolved("What was lowered so that the call could be afforded; null when nothing was.")
    def clamp(self, info: Info) -> Clamp | None:
        """Tell it; a caller that set no bound asked for all that the model says."""
        clamp = self.shown.clamp
        if clamp is None:
            return None
        model = catalogue.named(info.context, self.shown.admitted_model)
        largest = model.max_output_tokens if model else None
        requested = clamp.requested if clamp.requested is not None else largest or clamp.allowed
        return Clamp(requested_max_tokens=requested, allowed_max_tokens=clamp.allowed, reason=clamp.reason)

    @classmethod
    def of(cls, receipt: View) -> Self:
        """The receipt as GraphQL shows it."""
        return cls(
            id=ids.encode("Receipt", receipt.call_id),
            call_id=str(receipt.call_id),
            request_id=str(receipt.call_id),
            state=receipt.state,
            requested_model=receipt.requested_model,
            model_reason=receipt.model_reason,
            attempts=[Attempt.of(receipt, attempt) for attempt in receipt.attempts],
            lines=[ReceiptLine.of(line) for line in receipt.lines],
            list_value=Money.of(receipt.list_microusd),
            charge=Money.of(receipt.charge_microusd),
            charge_usd=decimal.Decimal(amounts.picos_as_usd(receipt.charge_picousd)),
            upstream_cost=Money.of(receipt.upstream_cost_microusd),
            hold=Hold.of(receipt.hold),
            funding=[Funding.of(receipt, part) for part in receipt.funding],
            transfers=[Transfer.of(transfer) for transfer in receipt.transfers],
            timings=CallTimings.of(receipt.timings),
            idempotent=receipt.idempotent,
            replays=receipt.replays,
            shown=receipt,
        )


async def receipt_of(info: Info, call_id: str) -> Receipt | None:
    """The receipt of a call, when the caller may see it."""
    found = await resolvers.receipt(info.context, call_id)
    return Receipt.of(found) if found else None
