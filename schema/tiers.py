"""Tiers: what is on sale, and what it allows."""

from typing import Self

import strawberry
from strawberry import field

from domain.money import tiers as domain
from models import enums
from resolvers import presets
from schema import ids
from schema.amounts import Money
from schema.context import Info
from schema.fields import resolved
from schema.nodes import Node
from schema.presets import Preset
from schema.scalars import SafeInt, Window

MICROUSD_PER_CENT = 10_000


@strawberry.type(description="What a tier allows of one resource in one window.")
class TierLimit:
    """As the contract has it."""

    resource: enums.Resource = field(description="The resource.")
    window: Window = field(description="The window.")
    limit: SafeInt | None = field(description="The most allowed; null means unlimited.")


@strawberry.type(description="A tier on sale.")
class Tier(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    slug: str = field(description="The stable handle, for example `pro`.")
    name: str = field(description="The display name.")
    product_name: str = field(description="The product it belongs to.")
    price: Money = field(description="What one cycle costs.")
    cycle: enums.BillingCycle = field(description="How often it is billed.")
    trial_days: int = field(description="Days of trial for a first subscription.")
    limits: list[TierLimit] = field(description="What it allows; a resource may be limited over several windows.")
    preset_slugs: strawberry.Private[tuple[str, ...] | None]

    @resolved("The presets whose routes it opens.")
    def presets(self, info: Info) -> list[Preset]:
        """Show them; a tier that names none opens every one."""
        opened = self.preset_slugs
        return [Preset.of(preset) for preset in presets.every(info.context) if opened is None or preset.slug in opened]

    @classmethod
    def of(cls, tier: domain.Tier) -> Self:
        """The tier as GraphQL shows it."""
        return cls(
            id=ids.encode("Tier", tier.slug),
            slug=tier.slug,
            name=tier.name,
            product_name=tier.product_name,
            price=Money.of(tier.price_cents * MICROUSD_PER_CENT),
            cycle=tier.billing_cycle,
            trial_days=tier.trial_days,
            limits=[
                TierLimit(resource=limit.resource, window=Window(limit.window), limit=None if limit.most is None else SafeInt(limit.most))
                for limit in tier.limits
            ],
            preset_slugs=tier.presets,
        )
