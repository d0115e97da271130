"""Tiers on sale, and those that somebody may still have."""

from domain.money import tiers
from domain.money.tiers import Tier


async def on_sale() -> list[Tier]:
    """Cheapest first."""
    return await tiers.listed()


async def of_slug(slug: str) -> Tier | None:
    """The tier of a slug, a retired one too."""
    return (await tiers.find_many([slug])).get(slug)
