"""The shipped prices as versions in memory, for tests that work a charge out by hand."""

import tomllib
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from domain.access.callers import Actor
from domain.money.catalogue import ModelEntry, PriceRow, PriceVersion, entries_of
from models.enums import ActorKind
from operations.database import SHIPPED_PRICES

SHIPPED: dict[str, ModelEntry] = {entry.name: entry for entry in entries_of(tomllib.loads(SHIPPED_PRICES.read_text(), parse_float=Decimal))}


def version(rows: tuple[PriceRow, ...], model: str = "test-model") -> PriceVersion:
    """Make a price version of rows."""
    then = datetime(2026, 11, 21, tzinfo=UTC)
    return PriceVersion(UUID(int=1), model, None, rows, then, None, "tests", Actor(ActorKind.SYSTEM, None, "tests"), then)


def shipped(model: str) -> PriceVersion:
    """Return the shipped prices of a model."""
    return version(SHIPPED[model].rows, model)
