"""Re-ratings, for operators."""

from uuid import UUID

from domain.pages import Page, PageOf
from domain.serving import reratings
from domain.serving.reratings import LineView, NewRerating, ReratingView
from resolvers.asking import Asking


async def page(asking: Asking, wanted: Page) -> PageOf[ReratingView]:
    """A page of them, newest first."""
    return await reratings.page(asking.known, wanted)


async def count(asking: Asking) -> int:
    """How many there are."""
    return await reratings.count(asking.known)


async def lines(asking: Asking, rerating_id: UUID, most: int) -> list[LineView]:
    """The workspaces concerned."""
    return await reratings.lines(asking.known, rerating_id, most)


async def create(asking: Asking, new: NewRerating) -> ReratingView:
    """Queue a preview."""
    return await reratings.create(asking.known, new, asking.facilities.book)


async def apply(asking: Asking, rerating_id: UUID) -> ReratingView:
    """Queue the posting."""
    return await reratings.apply(asking.known, rerating_id)
