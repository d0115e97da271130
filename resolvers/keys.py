"""API keys: listed, found, made, changed, rotated, revoked."""

from uuid import UUID

from domain.access import keys
from domain.access.keys import KeyChanges, KeyFilter, KeyView, NewKey
from domain.pages import Page, PageOf
from resolvers.asking import Asking, offered_names


async def page(asking: Asking, wanted: Page, filter_: KeyFilter) -> PageOf[KeyView]:
    """A page of the workspace's keys, newest first."""
    return await keys.page(asking.known, wanted, filter_)


async def count(asking: Asking, filter_: KeyFilter) -> int:
    """How many keys match."""
    return await keys.count(asking.known, filter_)


async def create(asking: Asking, new: NewKey) -> tuple[KeyView, str | None]:
    """Make a key; the secret is None when an idempotency key has made it before."""
    return await keys.create(asking.known, new, offered=offered_names(asking))


async def update(asking: Asking, key_id: UUID, changes: KeyChanges) -> KeyView:
    """Change a key."""
    return await keys.update(asking.known, key_id, changes, offered=offered_names(asking))


async def rotate(asking: Asking, key_id: UUID, grace_seconds: int) -> tuple[KeyView, str]:
    """Give a key a new secret."""
    return await keys.rotate(asking.known, key_id, grace_seconds)


async def revoke(asking: Asking, key_id: UUID) -> KeyView:
    """Revoke a key."""
    return await keys.revoke(asking.known, key_id)
