"""End users: listed, blocked, bounded and forgotten; their wallets."""

from uuid import UUID

from domain.access import end_users
from domain.access.end_users import EndUserChanges, EndUserView
from domain.apps import wallets
from domain.money.ledger import TransferView
from domain.pages import Page, PageOf
from domain.usage import erasure
from resolvers.asking import Asking, offered_names


async def page(asking: Asking, app_id: UUID, wanted: Page, start: str | None) -> PageOf[EndUserView]:
    """A page of an app's end users, last seen first."""
    return await end_users.page(asking.known, app_id, wanted, start)


async def count(asking: Asking, app_id: UUID, start: str | None) -> int:
    """How many end users an app has."""
    return await end_users.count(asking.known, app_id, start)


async def update(asking: Asking, end_user_id: UUID, changes: EndUserChanges) -> EndUserView:
    """Change an end user."""
    return await end_users.update(asking.known, end_user_id, changes, offered=offered_names(asking))


async def adjust_wallet(
    asking: Asking, app_id: UUID, name: str, amount_microusd: int, reason: str | None, idempotency_key: str
) -> tuple[EndUserView, TransferView]:
    """Move credit between the workspace's cash and an end user's wallet."""
    return await wallets.adjust(asking.known, app_id, name, amount_microusd, reason, idempotency_key)


async def erase(asking: Asking, end_user_id: UUID) -> None:
    """Forget an end user."""
    await erasure.erase(asking.known, end_user_id)
