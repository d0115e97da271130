"""Migrations, and the models that every installation offers from the start."""

import asyncio
import tomllib
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from domain.access.callers import Actor
from domain.money import catalogue, tiers
from domain.sql.install import statements
from models import database
from models import migrate as migrations
from models.enums import ActorKind
from runtime import load_tiers
from settings import Settings

SHIPPED_PRICES = Path(__file__).parent / "prices.toml"


async def migrate(settings: Settings) -> None:
    """Bring the database up to date, then offer the shipped models at their shipped prices where no newer version of ours stands, and the tiers."""
    offered = load_tiers(settings.tiers)
    application_url = settings.database_url.get_secret_value()
    owner_url = settings.migration_database_url.get_secret_value() if settings.migration_database_url else application_url
    await migrations.migrate(owner_url, application_url, statements())
    await database.open_pool(application_url, pool=2)
    try:
        await ship_prices()
        await tiers.keep(offered, at=datetime.now(UTC))
    finally:
        await database.close_pool()


async def ship_prices() -> None:
    """Enter the shipped prices of models that have none; an operator's own prices are never replaced by ours."""
    document = tomllib.loads(await asyncio.to_thread(SHIPPED_PRICES.read_text), parse_float=Decimal)
    now = datetime.now(UTC)
    priced = {row["model"] for row in await database.fetch("SELECT DISTINCT model FROM price WHERE upstream IS NULL AND source NOT LIKE 'tallygate %'")}
    for entry in catalogue.entries_of(document):
        if entry.name not in priced:
            await catalogue.enter(entry, source=f"tallygate {document['dated']}", effective_from=now, actor=Actor(ActorKind.SYSTEM, None, "migrate"), at=now)


async def behind(settings: Settings) -> list[str]:
    """Return the migrations that the database lacks."""
    return await migrations.pending(settings.database_url.get_secret_value(), migrations.shipped())
