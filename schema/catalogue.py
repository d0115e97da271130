"""Models of language and what they cost."""

import datetime
import decimal
from typing import TYPE_CHECKING, Annotated, Self

import strawberry
from strawberry import UNSET, field

from domain.errors import NotFound
from domain.money import amounts
from domain.money.catalogue import ModelView, NewPrice, PriceVersion, as_kept, make_row, paged
from domain.money.catalogue import PriceRow as Row
from domain.pages import Page, PageOf
from models import enums
from models.enums import Bucket, Scope
from resolvers import catalogue as resolvers
from resolvers import upstreams
from schema import ids, pages, ranges
from schema.access import requires
from schema.callers import Actor
from schema.context import Info
from schema.directives import PAGED
from schema.fields import resolved
from schema.inputs import given
from schema.nodes import Node
from schema.scalars import SafeInt
from schema.sources import Report, UsageSource

if TYPE_CHECKING:
    from schema.upstreams import Upstream


@strawberry.input(description="Narrows a list of models.")
class ModelFilter:
    """As the contract has it."""

    capabilities: list[enums.ModelCapability] | None = field(description="What they can do, all of it.", default=strawberry.UNSET)
    vendors: list[str] | None = field(description="Who makes them.", default=strawberry.UNSET)


@strawberry.type(
    description=(
        "One price. The most particular row that fits a call holds; a bucket without a row is never free, but refused or marked for review."
    )
)
class PriceRow:
    """As the contract has it."""

    bucket: enums.Bucket = field(description="The bucket.")
    usd: decimal.Decimal = field(description="Dollars for `per` units, exact.")
    per: SafeInt = field(description="How many units `usd` buys: 1000000 for tokens.")
    above_input_tokens: SafeInt | None = field(description="Only when the prompt has more tokens than this; null for any.")
    service_tier: str | None = field(
        description="Only in this service tier of the provider, for example `batch`; null for the standard one."
    )
    geography: str | None = field(description="Only in this geography of the provider, for example `us`; null for any.")

    @classmethod
    def of(cls, row: Row) -> Self:
        """The row as GraphQL shows it."""
        return cls(
            bucket=row.bucket,
            usd=decimal.Decimal(row.usd),
            per=SafeInt(row.per),
            above_input_tokens=None if row.above_input_tokens is None else SafeInt(row.above_input_tokens),
            service_tier=row.service_tier,
            geography=row.geography,
        )


@strawberry.type(
    description=(
        "A version of prices. It never changes: a call keeps the version it was charged at, and a correction is a newer "
        "version and a re-rating."
    )
)
class Price(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    input_usd_per_million: decimal.Decimal | None = field(
        description="A million tokens of uncached input, as the standard row has it; null when not sold so."
    )
    output_usd_per_million: decimal.Decimal | None = field(description="A million tokens of output.")
    cache_read_usd_per_million: decimal.Decimal | None = field(description="A million tokens read from the prompt cache.")
    cache_write5m_usd_per_million: decimal.Decimal | None = field(
        description="A million tokens written to the prompt cache for five minutes."
    )
    cache_write1h_usd_per_million: decimal.Decimal | None = field(description="A million tokens written to the prompt cache for an hour.")
    rows: list[PriceRow] = field(
        description="Every row: the standard ones, long context, service tiers, geographies, and what is not a token."
    )
    effective_from: datetime.datetime = field(description="Since when it holds, inclusive.")
    effective_until: datetime.datetime | None = field(description="Until when it holds, exclusive; null until a newer version is dated.")
    source: str = field(description="Where it comes from, for example `genai-prices 2026-11-20`.")
    created_by: Actor = field(description="Who entered it.")
    created_at: datetime.datetime = field(description="When it was entered.")
    of_model: strawberry.Private[str]
    of_upstream: strawberry.Private[str | None]

    @resolved("The model.")
    def model(self, info: Info) -> "Model":
        """Read it in the book."""
        found = resolvers.named(info.context, self.of_model)
        assert found is not None, "a price's model stays in the book"
        return Model.of(found)

    @resolved(
        "The upstream whose cost this is; null for the price that customers pay. Requires scope `OPERATOR`.", extensions=requires(Scope.OPERATOR)
    )
    async def upstream(self, info: Info) -> Annotated["Upstream", strawberry.lazy("schema.upstreams")] | None:
        """Read what is known of it; nothing for one that is configured no more."""
        from schema.upstreams import Upstream  # it shows prices itself

        found = await upstreams.named(info.context, self.of_upstream) if self.of_upstream else None
        return Upstream.of(found) if found else None

    @classmethod
    def of(cls, version: PriceVersion) -> Self:
        """The version as GraphQL shows it."""
        return cls(
            id=ids.encode("Price", version.id),
            of_model=version.model,
            of_upstream=version.upstream,
            input_usd_per_million=_per_million(version, Bucket.UNCACHED_INPUT),
            output_usd_per_million=_per_million(version, Bucket.OUTPUT),
            cache_read_usd_per_million=_per_million(version, Bucket.CACHE_READ),
            cache_write5m_usd_per_million=_per_million(version, Bucket.CACHE_WRITE_5M),
            cache_write1h_usd_per_million=_per_million(version, Bucket.CACHE_WRITE_1H),
            rows=[PriceRow.of(row) for row in version.rows],
            effective_from=version.effective_from,
            effective_until=version.effective_until,
            source=version.source,
            created_by=Actor.of(version.creator),
            created_at=version.created_at,
        )


def _per_million(version: PriceVersion, bucket: Bucket) -> decimal.Decimal | None:
    row = version.standard(bucket)
    return None if row is None else decimal.Decimal(amounts.picos_as_usd(row.picousd * 1_000_000))


@strawberry.input(description="One price to enter.")
class PriceRowInput:
    """As the contract has it."""

    bucket: enums.Bucket = field(description="The bucket.")
    usd: decimal.Decimal = field(description="Dollars for `per` units, 0 or more; 0 is a decision and means free.")
    per: SafeInt = field(description="How many units `usd` buys.", default=SafeInt(1_000_000))
    above_input_tokens: SafeInt | None = field(description="Only when the prompt has more tokens than this.", default=UNSET)
    service_tier: str | None = field(description="Only in this service tier of the provider.", default=UNSET)
    geography: str | None = field(description="Only in this geography of the provider.", default=UNSET)

    def row(self, index: int) -> Row:
        """The row as the domain takes it; raises InvalidInput."""
        above = None if self.above_input_tokens is UNSET else self.above_input_tokens
        path = ("rows", str(index))
        return as_kept(make_row(self.bucket, str(self.usd), self.per, above, self.service_tier or None, self.geography or None, path=path))


@strawberry.input(description="Input of priceCreate.")
class PriceCreateInput:
    """As the contract has it."""

    model: str = field(description="The model, by name.")
    upstream_id: strawberry.ID | None = field(
        description="The upstream whose cost this is; the price that customers pay, when absent.", default=UNSET
    )
    rows: list[PriceRowInput] = field(description="The rows.")
    effective_from: datetime.datetime | None = field(
        description="Since when it holds; now when absent. An earlier instant changes no charge until it is re-rated.", default=UNSET
    )
    source: str = field(description="Where it comes from.")
    idempotency_key: str = field(description="Makes a retry enter it once.")

    def new(self) -> NewPrice:
        """The version to enter; raises InvalidInput, and NotFound for what is no upstream's ID."""
        upstream_id = given(self.upstream_id)
        upstream = None if upstream_id is None else ids.key_of("Upstream", upstream_id)
        if upstream_id is not None and upstream is None:
            raise NotFound("upstream", path=("upstreamId",))
        rows = tuple(row.row(index) for index, row in enumerate(self.rows))
        return NewPrice(self.model, rows, self.source, self.idempotency_key, upstream, self.effective_from or None)


@strawberry.type(description="A price version and its place.")
class PriceEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: Price = field(description="The price version.")


@strawberry.type(description="A page of price versions.")
class PriceConnection:
    """A page of price versions."""

    of_model: strawberry.Private[str]
    page: strawberry.Private[PageOf[PriceVersion]]
    counted: strawberry.Private[int | None] = None

    @resolved("The page.")
    def edges(self) -> list[PriceEdge]:
        """Show the page."""
        return [PriceEdge(cursor=pages.cursor("Price", version.id), node=Price.of(version)) for version in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[Price]:
        """Show the page."""
        return [Price.of(version) for version in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("Price", self.page, [version.id for version in self.page.items])

    @resolved("How many there are in all; counted only when selected.")
    def total_count(self, info: Info) -> SafeInt:
        """Count the versions."""
        return SafeInt(resolvers.price_count(info.context, self.of_model) if self.counted is None else self.counted)

    @classmethod
    def within(cls, versions: list[PriceVersion], wanted: Page) -> Self:
        """A page of versions of several models."""
        return cls(of_model="", page=paged(versions, wanted), counted=len(versions))


@strawberry.type(description="A model that the gateway accepts.")
class Model(Node, UsageSource):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    name: str = field(description="The logical name to send as `model`.")
    display_name: str = field(description="The display name.")
    aliases: list[str] = field(description="Other names it answers to.")
    vendor: str | None = field(description="The company that makes it; null for a routing alias such as `auto`.")
    routing: bool = field(description="Whether it routes to other models, as `auto` does.")
    context_window: int | None = field(description="The most tokens of input and output together; null for a routing alias.")
    max_output_tokens: int | None = field(description="The most tokens of output; null for a routing alias.")
    capabilities: list[enums.ModelCapability] = field(description="What it can do.")
    created_at: datetime.datetime = field(description="When it was first offered.")
    retires_at: datetime.datetime | None = field(description="When it will stop being offered; null when no date is set.")

    targets: strawberry.Private[tuple[str, ...]] = ()

    @resolved("The workspace's usage of it. Requires scope `USAGE_READ`.", extensions=requires(Scope.USAGE_READ))
    async def usage(
        self, info: Info, range: ranges.Over = ranges.DEFAULT_RANGE, timezone: ranges.Zone = ranges.UTC, filter: ranges.Narrowed = UNSET
    ) -> Report | None:
        """Resolve the window; what is selected is measured."""
        from schema.usage import report

        return await report(info, range, timezone, filter, of_model=self.name)

    @resolved("The models it may choose from; empty unless it routes.")
    def routes_to(self, info: Info) -> list["Model"]:
        """Find them."""
        return models_named(info, self.targets) or []

    @resolved("The price version in force; null when it is not sold by the token.")
    def price(self, info: Info) -> Price | None:
        """Read it in the book."""
        version = resolvers.price_in_force(info.context, self.name)
        return Price.of(version) if version else None

    @resolved("Every price version, newest first.", directives=[PAGED])
    def prices(
        self, info: Info, first: pages.First = UNSET, after: pages.After = UNSET, last: pages.Last = UNSET, before: pages.Before = UNSET
    ) -> PriceConnection:
        """Read a page of them in the book."""
        return PriceConnection(
            of_model=self.name, page=resolvers.prices(info.context, self.name, pages.page_of("Price", first, after, last, before))
        )

    @classmethod
    def of(cls, model: ModelView) -> Self:
        """The model as GraphQL shows it."""
        return cls(
            id=ids.encode("Model", model.name),
            name=model.name,
            display_name=model.display_name,
            aliases=list(model.aliases),
            vendor=model.vendor,
            routing=bool(model.routes_to),
            targets=model.routes_to,
            context_window=model.context_window,
            max_output_tokens=model.max_output_tokens,
            capabilities=list(model.capabilities),
            created_at=model.created_at,
            retires_at=model.retires_at,
        )


def model_named(info: Info, name: str | None) -> Model | None:
    """The model of a name that something refers to; None for no name, and for one that is not offered any more."""
    found = resolvers.named(info.context, name) if name else None
    return Model.of(found) if found else None


def models_named(info: Info, names: tuple[str, ...] | None) -> list[Model] | None:
    """The models of names that something refers to, without those that are not offered; None for no restriction."""
    return None if names is None else [model for model in (model_named(info, name) for name in names) if model]


Filter = Annotated[ModelFilter | None, strawberry.argument(description="Only the models that match.")]
