"""Upstreams, their health, prices and tries, for operators."""

from datetime import UTC, datetime

from domain.money.catalogue import PriceVersion
from domain.pages import Page, PageOf
from domain.serving import upstreams
from domain.serving.receipts import AttemptView, Receipt
from domain.serving.upstreams import UpstreamView
from models.enums import UsageOutcome
from resolvers.asking import Asking


async def seen(asking: Asking) -> list[UpstreamView]:
    """Every configured upstream and how it does."""
    return await upstreams.seen(asking.known, asking.facilities.routes)


async def named(asking: Asking, name: str) -> UpstreamView | None:
    """One upstream by its name; None for one that is not configured."""
    return next((upstream for upstream in await seen(asking) if upstream.name == name), None)


def prices(asking: Asking, name: str) -> list[PriceVersion]:
    """What an upstream charges, newest version first."""
    return upstreams.prices(name, asking.facilities.book, datetime.now(UTC))


async def attempts(asking: Asking, name: str, page: Page, outcomes: tuple[UsageOutcome, ...] | None) -> PageOf[tuple[Receipt, AttemptView]]:
    """A page of an upstream's tries, each with its call's receipt."""
    return await upstreams.attempts(asking.known, name, page, outcomes, asking.facilities.book)


async def attempt_count(asking: Asking, name: str, outcomes: tuple[UsageOutcome, ...] | None) -> int:
    """How many tries an upstream has had."""
    return await upstreams.attempt_count(asking.known, name, outcomes)
