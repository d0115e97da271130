"""Document 4's prices, for whoever asks: what a million tokens of each model cost, as the inference road charges them now."""

from datetime import UTC, datetime

from domain.money import tiers
from domain.money.amounts import picos_as_usd
from domain.money.catalogue import ModelView, PriceVersion
from domain.money.tiers import Tier
from models.enums import BillingCycle, Bucket, Resource
from rest.doors import Ask, Document, Operation
from rest.fields import Nothing, Told
from rest.shapes import TYPED, TypedError

PER = 1_000_000


class Rate(Told):
    """One price row: dollars for `per` units, and when it holds; the most particular row that fits a call counts."""

    bucket: Bucket
    usd: str
    per: int
    above_input_tokens: int | None
    service_tier: str | None
    geography: str | None


class ModelRates(Told):
    """What a model costs: standard dollars for a million tokens, null where it is not sold so, and every row behind them."""

    model: str
    input: str | None
    output: str | None
    cache_read: str | None
    cache_write_5m: str | None
    cache_write_1h: str | None
    effective_from: datetime
    rows: list[Rate]


class TierLimit(Told):
    """The most of a resource in a window; null is no limit."""

    resource: Resource
    window: str
    limit: int | None


class PricedTier(Told):
    """A tier on sale, and the tools' roads that it opens."""

    slug: str
    name: str
    price_cents: int
    billing_cycle: BillingCycle
    limits: list[TierLimit]
    presets: list[str]


class Pricing(Told):
    """The tiers on sale, cheapest first."""

    tiers: list[PricedTier]


class TokenPricing(Told):
    """Pay-per-token rates of every model that is sold by the token, by name."""

    currency: str
    per: int
    models: list[ModelRates]


def _standard(price: PriceVersion, bucket: Bucket) -> str | None:
    row = price.standard(bucket)
    return None if row is None else picos_as_usd(row.picousd * PER)


def _rates(model: ModelView, price: PriceVersion) -> ModelRates:
    return ModelRates(
        model=model.name,
        input=_standard(price, Bucket.UNCACHED_INPUT),
        output=_standard(price, Bucket.OUTPUT),
        cache_read=_standard(price, Bucket.CACHE_READ),
        cache_write_5m=_standard(price, Bucket.CACHE_WRITE_5M),
        cache_write_1h=_standard(price, Bucket.CACHE_WRITE_1H),
        effective_from=price.effective_from,
        rows=[
            Rate(
                bucket=row.bucket,
                usd=row.usd,
                per=row.per,
                above_input_tokens=row.above_input_tokens,
                service_tier=row.service_tier,
                geography=row.geography,
            )
            for row in price.rows
        ],
    )


def _tier(tier: Tier, every_preset: tuple[str, ...]) -> PricedTier:
    return PricedTier(
        slug=tier.slug,
        name=tier.name,
        price_cents=tier.price_cents,
        billing_cycle=tier.billing_cycle,
        limits=[TierLimit(resource=limit.resource, window=limit.window, limit=limit.most) for limit in tier.limits],
        presets=[preset for preset in every_preset if tier.presets is None or preset in tier.presets],
    )


async def _tokens(ask: Ask[Nothing]) -> TokenPricing:
    now = datetime.now(UTC)
    priced = [(model, ask.runtime.book.price(model.name, now)) for model in sorted(ask.runtime.routes.offered(), key=lambda model: model.name)]
    return TokenPricing(currency="USD", per=PER, models=[_rates(model, price) for model, price in priced if price is not None])


def document(presets: tuple[str, ...]) -> Document:
    """Return the operations; `presets` are the slugs of all tools' roads, which a tier opens that names none."""

    async def on_sale(ask: Ask[Nothing]) -> Pricing:
        return Pricing(tiers=[_tier(tier, presets) for tier in await tiers.listed()])

    return Document(
        name="Gateway: prices",
        shape=lambda headers: TYPED,
        errors=TypedError,
        public=True,
        operations=(
            Operation("GET", "/pricing", "The tiers on sale, cheapest first; public.", Nothing, Pricing, on_sale),
            Operation("GET", "/pricing/tokens", "Pay-per-token rates of every model, in dollars for a million tokens; public.", Nothing, TokenPricing, _tokens),
        ),
    )
