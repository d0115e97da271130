"""End users: listed."""

from uuid import UUID

from domain.access import end_users
from domain.access.end_users import EndUserView
from domain.pages import Page, PageOf
from resolvers.asking import Asking


async def page(asking: Asking, app_id: UUID, wanted: Page, start: str | None) -> PageOf[EndUserView]:
    """A page of an app's end users, last seen first."""
    return await end_users.page(asking.known, app_id, wanted, start)


async def count(asking: Asking, app_id: UUID, start: str | None) -> int:
    """How many end users an app has."""
    return await end_users.count(asking.known, app_id, start)
