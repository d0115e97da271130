"""Client tokens: made, listed, revoked."""

from uuid import UUID

from domain.access import client_tokens
from domain.access.client_tokens import NewToken, TokenView
from domain.pages import Page, PageOf
from resolvers.asking import Asking, offered_names


async def create(asking: Asking, new: NewToken) -> tuple[TokenView, str]:
    """Make a token, and return it with what the browser holds."""
    made = await client_tokens.create(asking.known, new, asking.facilities.addresses, offered=offered_names(asking))
    return made, client_tokens.sign(asking.facilities.signing_secret, made)


async def page(asking: Asking, app_id: UUID, wanted: Page) -> PageOf[TokenView]:
    """A page of an app's tokens that still work, newest first."""
    return await client_tokens.page(asking.known, app_id, wanted)


async def count(asking: Asking, app_id: UUID) -> int:
    """How many of an app's tokens still work."""
    return await client_tokens.count(asking.known, app_id)


async def revoke_one(asking: Asking, token_id: UUID) -> int:
    """Revoke a token."""
    return await client_tokens.revoke_one(asking.known, token_id)


async def revoke_of_app(asking: Asking, app_id: UUID) -> int:
    """Revoke every token of an app."""
    return await client_tokens.revoke_of_app(asking.known, app_id)


async def revoke_of_key(asking: Asking, key_id: UUID) -> int:
    """Revoke every token that a key made."""
    return await client_tokens.revoke_of_key(asking.known, key_id)


async def revoke_of_end_user(asking: Asking, end_user_id: UUID) -> int:
    """Revoke every token of an end user."""
    return await client_tokens.revoke_of_end_user(asking.known, end_user_id)
