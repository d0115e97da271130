"""Models and prices, from the book that the process keeps."""

from datetime import UTC, datetime
from uuid import UUID

from domain.errors import NotFound
from domain.money import catalogue
from domain.money.catalogue import ModelView, NewPrice, PriceVersion
from domain.pages import Page, PageOf
from models.enums import ModelCapability
from resolvers.asking import Asking


async def offered(asking: Asking, capabilities: list[ModelCapability] | None, vendors: list[str] | None) -> list[ModelView]:
    """The models that calls may name, that have all of the capabilities and come from one of the vendors, by name; None asks for nothing."""
    await asking.facilities.book.refresh()
    return [
        model
        for model in asking.facilities.offered()
        if set(capabilities or ()) <= set(model.capabilities) and (vendors is None or model.vendor in vendors)
    ]


async def found(asking: Asking, name: str) -> ModelView | None:
    """The model of a name or alias."""
    await asking.facilities.book.refresh()
    return named(asking, name)


def named(asking: Asking, name: str) -> ModelView | None:
    """The model of a name or alias, as the book has it now."""
    return asking.facilities.find(name)


async def create_price(asking: Asking, new: NewPrice) -> PriceVersion:
    """Enter a price version; raises NotFound for an upstream that is not configured."""
    if new.upstream is not None and new.upstream not in {upstream.name for upstream in asking.facilities.routes.upstreams}:
        raise NotFound("upstream", path=("upstreamId",))
    return await catalogue.create(asking.known, new, asking.facilities.book)


def price_in_force(asking: Asking, model: str) -> PriceVersion | None:
    """What customers pay for a model at this instant."""
    return asking.facilities.book.price(model, asking.caller.at if asking.caller else datetime.now(UTC))


def price_of_id(asking: Asking, price_id: UUID) -> PriceVersion | None:
    """A price version by its id, whoever pays it."""
    return asking.facilities.book.price_by_id(price_id)


async def version(asking: Asking, price_id: UUID) -> PriceVersion:
    """A price version that a row names."""
    price = price_of_id(asking, price_id)
    if price is None:
        await asking.facilities.book.refresh()
        price = price_of_id(asking, price_id)
    assert price is not None, "versions are never deleted"
    return price


def prices(asking: Asking, model: str, wanted: Page) -> PageOf[PriceVersion]:
    """A page of a model's price versions, newest first."""
    return asking.facilities.book.versions(model, wanted)


def price_count(asking: Asking, model: str) -> int:
    """How many price versions a model has."""
    counted, page = 0, Page(100)
    while True:
        found_ = asking.facilities.book.versions(model, page)
        counted += len(found_.items)
        if not found_.has_next:
            return counted
        page = Page(100, after=found_.items[-1].id)
