"""Document 0's client tokens."""

from datetime import datetime
from typing import Any

from pydantic import Field

from domain.access import client_tokens
from domain.access.client_tokens import NewToken
from domain.apps import registry
from domain.errors import Forbidden, MissingScope, NotFound
from models.enums import Scope
from rest.doors import Ask, Operation
from rest.fields import Asked, CamelTold


class TokenBody(Asked):
    """What the token is for."""

    app_id: str | None = Field(default=None, alias="appId", description="The app that it is bound to; without one it is bound to the workspace alone.")


class MadeToken(CamelTold):
    """A token, shown this once."""

    token: str
    expires_at: datetime


async def _make_token(ask: Ask[TokenBody]) -> MadeToken:
    app_id = None
    if ask.given.app_id is not None:
        try:
            app_id = (await registry.named(ask.caller, ask.given.app_id, Scope.CLIENT_TOKENS_WRITE)).id
        except MissingScope:
            raise
        except Forbidden:  # the document knows no other answer to another's app
            raise NotFound("app", path=("appId",)) from None
    offered = frozenset(model.name for model in ask.runtime.routes.offered())
    made = await client_tokens.create(ask.caller, NewToken(app_id, idempotency_key=ask.idempotency_key), ask.runtime.addresses, offered=offered)
    return MadeToken(token=client_tokens.sign(ask.runtime.settings.secret.get_secret_value(), made), expires_at=made.expires_at)


OPERATIONS: tuple[Operation[Any], ...] = (
    Operation("POST", "/v1/client-tokens", "Make a short-lived token for a browser.", TokenBody, MadeToken, _make_token, refusals=(400, 404, 409, 413, 422)),
)
"""A part of document 0."""
