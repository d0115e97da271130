"""The request log: single metered calls, and records made by hand."""

import datetime
from typing import TYPE_CHECKING, Annotated, Self
from uuid import UUID

import strawberry
from strawberry import field

from domain.pages import PageOf
from domain.usage.metrics import UsageFilter as Narrowing
from domain.usage.records import Adjustment, RecordFilter, RecordView, Tokens
from domain.usage.records import Order as Sorting
from models import enums
from models.enums import Scope
from resolvers import usage as resolvers
from schema import ids, pages
from schema.access import requires
from schema.amounts import Money
from schema.apps import App
from schema.callers import Actor
from schema.catalogue import Model, model_named
from schema.client_tokens import ClientToken
from schema.context import Info
from schema.directives import Cost
from schema.end_users import EndUser
from schema.enums import SortDirection
from schema.fields import resolved
from schema.keys import ApiKey
from schema.ledger import Transfer
from schema.nodes import Node
from schema.presets import PresetVersion, version_named
from schema.ranges import UsageFilter, UsageRange
from schema.scalars import MicroUsd, SafeInt
from schema.users import User, visible

if TYPE_CHECKING:
    from schema.receipts import Receipt


@strawberry.type(description="A tag that a call carries.")
class Tag:
    """As the contract has it."""

    name: str = field(description="Its name.")
    value: str = field(description="Its value.")


@strawberry.type(description="Tokens of one call by kind.")
class TokenCounts:
    """As the contract has it."""

    input: SafeInt = field(description="Uncached input.")
    output: SafeInt = field(description="Output, reasoning included.")
    cache_read: SafeInt = field(description="Input read from the prompt cache.")
    cache_write5m: SafeInt = field(description="Input written to the prompt cache for five minutes.")
    cache_write1h: SafeInt = field(description="Input written to the prompt cache for an hour.")
    reasoning: SafeInt = field(description="Reasoning, a part of `output`.")
    total: SafeInt = field(description="Input, output, cache reads and cache writes.")
    source: enums.TokenCountSource = field(description="Where the numbers come from.")

    @classmethod
    def of(cls, tokens: Tokens) -> Self:
        """The counts as GraphQL shows them."""
        return cls(
            input=SafeInt(tokens.input),
            output=SafeInt(tokens.output),
            cache_read=SafeInt(tokens.cache_read),
            cache_write5m=SafeInt(tokens.cache_write_5m),
            cache_write1h=SafeInt(tokens.cache_write_1h),
            reasoning=SafeInt(tokens.reasoning),
            total=SafeInt(tokens.total),
            source=tokens.source,
        )


@strawberry.type(description="One correction of a usage record.")
class UsageAdjustment:
    """As the contract has it."""

    created_at: datetime.datetime = field(description="When.")
    actor: Actor = field(description="By whom.")
    reason: str = field(description="Why.")
    units_delta: SafeInt = field(description="Units added, or with a minus taken away.")
    cost_delta: Money = field(description="Charge added, or with a minus given back.")

    @classmethod
    def of(cls, adjustment: Adjustment) -> Self:
        """The correction as GraphQL shows it."""
        return cls(
            created_at=adjustment.created_at,
            actor=Actor.of(adjustment.actor),
            reason=adjustment.reason,
            units_delta=SafeInt(adjustment.units),
            cost_delta=Money.of(adjustment.charge_microusd),
        )


@strawberry.type(
    description=(
        "One usage event: a metered call, or a record logged by hand. Records are corrected by adjustment and removed "
        "by voiding, so that the\n"
        "ledger can always be explained."
    )
)
class UsageRecord(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    request_id: str | None = field(description="The `X-Request-Id` of the call; null for a record made by hand.")
    created_at: datetime.datetime = field(description="When the call began.")
    conversation_id: str | None = field(description="The conversation it belongs to, as the call names it.")
    tags: list[Tag] = field(description="What else the caller told, by header or metadata; 16 at most.")
    api_name: str = field(description="The metered API, for example `llm_query`.")
    endpoint: str = field(description="The path called, for example `/v1/messages`.")
    requested_model: str | None = field(description="The name the caller asked for, for example `auto`.")
    provider: str | None = field(description="The upstream provider.")
    streamed: bool = field(description="Whether the answer was streamed.")
    outcome: enums.UsageOutcome = field(description="How the call ended.")
    http_status: int | None = field(description="The HTTP status answered.")
    error_code: str | None = field(description="A short reason when it failed.")
    units: SafeInt = field(description="Units used.")
    tokens: TokenCounts | None = field(description="Tokens by kind; null when the call had none.")
    language: str | None = field(description="The BCP 47 language tag of the content.")
    characters: SafeInt = field(description="Characters of the text produced, or of the text given for speech.")
    lines: SafeInt = field(description="Lines of that text.")
    list_value: Money = field(description="What it is worth at list price, whoever paid.")
    cost: Money = field(description="What the workspace was charged, after markup and adjustments; 0 where a tier's quota paid.")
    latency_ms: int | None = field(description="Milliseconds to the last byte.")
    time_to_first_token_ms: int | None = field(description="Milliseconds to the first token; null unless streamed.")
    needs_review: bool = field(
        description="Whether something could not be priced for certain, so that a person must look: it was charged at a ceiling."
    )
    mode: enums.ApiKeyMode = field(description="Whether the call was real. Test calls are listed, and stand in no total.")
    status: enums.UsageRecordStatus = field(description="Whether the record counts.")
    upstream_cost: Money | None = field(
        description="What the upstreams charged, failed attempts included. Requires scope `OPERATOR`.", extensions=requires(Scope.OPERATOR)
    )
    record_id: strawberry.Private[UUID]
    user_id: strawberry.Private[UUID | None]
    key_id: strawberry.Private[UUID | None]
    app_id: strawberry.Private[UUID | None]
    client_token_id: strawberry.Private[UUID | None]
    end_user_id: strawberry.Private[UUID | None]
    model_name: strawberry.Private[str | None]
    preset_name: strawberry.Private[str | None]

    @resolved("Who made it; null when a workspace key did.")
    async def user(self, info: Info) -> User | None:
        """Load the person."""
        person = await info.context.users.load(self.user_id) if self.user_id else None
        return User.of(person, visible(info.context, person.id)) if person else None

    @resolved("The key used; null for a console or client-token call.")
    async def api_key(self, info: Info) -> ApiKey | None:
        """Load the key."""
        key = await info.context.keys.load(self.key_id) if self.key_id else None
        return ApiKey.of(key) if key else None

    @resolved("The app it was made for.")
    async def app(self, info: Info) -> App | None:
        """Load the app; null for a deleted one, and for whoever may not see apps."""
        app = await info.context.apps.load(self.app_id) if self.app_id else None
        return App.of(app) if app else None

    @resolved("The client token used.")
    async def client_token(self, info: Info) -> ClientToken | None:
        """Load the token; null for whoever may not see apps."""
        token = await info.context.client_tokens.load(self.client_token_id) if self.client_token_id else None
        return ClientToken.of(token) if token else None

    @resolved("The end user it was made for.")
    async def end_user(self, info: Info) -> EndUser | None:
        """Load the end user; null for whoever may not see apps."""
        found = await info.context.end_users.load(self.end_user_id) if self.end_user_id else None
        return EndUser.of(found) if found else None

    @resolved("The tool preset applied.")
    def preset(self, info: Info) -> PresetVersion | None:
        """Find the version; null for one that was taken away."""
        return version_named(info, self.preset_name)

    @resolved("The model that answered.")
    def model(self, info: Info) -> Model | None:
        """Read it in the book."""
        return model_named(info, self.model_name)

    @resolved("What was changed afterwards, oldest first.")
    async def adjustments(self, info: Info) -> list[UsageAdjustment]:
        """Load them."""
        return [UsageAdjustment.of(each) for each in await info.context.adjustments.load(self.record_id) or ()]

    @resolved("How the charge came about; null for a record made by hand.")
    async def receipt(self, info: Info) -> Annotated["Receipt", strawberry.lazy("schema.receipts")] | None:
        """Read it."""
        from schema.receipts import receipt_of  # it shows records itself

        return await receipt_of(info, self.request_id) if self.request_id else None

    @resolved("What moved in the ledger for it, corrections included; empty when a quota paid or the charge was 0.")
    async def transfers(self, info: Info) -> list[Transfer]:
        """Load them."""
        return [Transfer.of(each) for each in await info.context.transfers_of_calls.load(self.record_id) or ()]

    @classmethod
    def of(cls, record: RecordView) -> Self:
        """The record as GraphQL shows it."""
        return cls(
            id=ids.encode("UsageRecord", record.id),
            request_id=record.request_id,
            created_at=record.at,
            conversation_id=record.conversation,
            tags=[Tag(name=name, value=value) for name, value in sorted(record.tags.items())],
            api_name=record.api_name,
            endpoint=record.endpoint,
            requested_model=record.requested_model,
            provider=record.provider,
            streamed=record.streamed,
            outcome=record.outcome,
            http_status=record.http_status,
            error_code=record.error_code,
            units=SafeInt(record.units),
            tokens=TokenCounts.of(record.tokens) if record.tokens else None,
            language=record.language,
            characters=SafeInt(record.characters),
            lines=SafeInt(record.lines),
            list_value=Money.of(record.list_microusd),
            cost=Money.of(record.charge_microusd),
            upstream_cost=Money.of(record.upstream_cost_microusd),
            latency_ms=record.latency_ms,
            time_to_first_token_ms=record.first_token_ms,
            needs_review=record.needs_review,
            mode=record.mode,
            status=record.status,
            record_id=record.id,
            user_id=record.user_id,
            key_id=record.key_id,
            app_id=record.app_id,
            client_token_id=record.client_token_id,
            end_user_id=record.end_user_id,
            model_name=record.model,
            preset_name=record.preset,
        )


@strawberry.type(description="A usage record and its place.")
class UsageRecordEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: UsageRecord = field(description="The record.")


@strawberry.type(description="A page of usage records.")
class UsageRecordConnection:
    """A page of the request log."""

    page: strawberry.Private[PageOf[RecordView]]
    filter_: strawberry.Private[RecordFilter]

    @resolved("The page.")
    def edges(self) -> list[UsageRecordEdge]:
        """Show the page."""
        return [UsageRecordEdge(cursor=pages.cursor("UsageRecord", record.id), node=UsageRecord.of(record)) for record in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[UsageRecord]:
        """Show the page."""
        return [UsageRecord.of(record) for record in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("UsageRecord", self.page, [record.id for record in self.page.items])

    @resolved("How many there are in all; counted only when selected.", directives=[Cost(weight="5")])
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.log_count(info.context, self.filter_))


@strawberry.input(description="Narrows the request log.")
class UsageRecordFilter:
    """As the contract has it."""

    range: UsageRange | None = field(description="The window.", default=strawberry.UNSET)
    usage: UsageFilter | None = field(description="What the report filter narrows.", default=strawberry.UNSET)
    outcomes: list[enums.UsageOutcome] | None = field(description="How calls ended.", default=strawberry.UNSET)
    modes: list[enums.ApiKeyMode] | None = field(description="Real calls or test calls. Both, when absent.", default=strawberry.UNSET)
    statuses: list[enums.UsageRecordStatus] | None = field(
        description="Whether records count. ACTIVE only, when absent.", default=strawberry.UNSET
    )
    request_id: str | None = field(description="The `X-Request-Id` of one call.", default=strawberry.UNSET)
    needs_review: bool | None = field(
        description="Only records that wait for a person, or only those that do not.", default=strawberry.UNSET
    )
    minimum_cost: MicroUsd | None = field(description="Only calls that cost at least this.", default=strawberry.UNSET)

    async def wanted(self, info: Info) -> RecordFilter:
        """The filter as the domain takes it; days are those of UTC."""
        outcomes = tuple(self.outcomes) if isinstance(self.outcomes, list) else None
        return RecordFilter(
            window=await resolvers.window(info.context, self.range.wanted(), "UTC") if self.range else None,
            usage=self.usage.wanted(outcomes) if self.usage else Narrowing(outcomes=outcomes),
            modes=tuple(self.modes) if isinstance(self.modes, list) else None,
            statuses=tuple(self.statuses) if isinstance(self.statuses, list) else None,
            request_id=self.request_id or None,
            needs_review=self.needs_review if isinstance(self.needs_review, bool) else None,
            minimum_charge_microusd=self.minimum_cost if isinstance(self.minimum_cost, int) else None,
        )


@strawberry.input(description="The order of the request log.")
class UsageRecordOrder:
    """As the contract has it."""

    field: Sorting = strawberry.field(description="By what.")
    direction: SortDirection = strawberry.field(description="Which way.")


NEWEST_FIRST = UsageRecordOrder(field=Sorting.CREATED_AT, direction=SortDirection.DESC)

Filter = Annotated[UsageRecordFilter | None, strawberry.argument(description="Only the records that match.")]
Order = Annotated[UsageRecordOrder, strawberry.argument(description="The order.")]
