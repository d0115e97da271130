"""Document 0's client tokens."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from domain.access import client_tokens
from domain.access.client_tokens import DEFAULT_SECONDS, NewToken
from domain.apps import registry
from domain.errors import Forbidden, MissingScope, NotFound
from models.enums import Scope
from rest.doors import Ask, Operation
from rest.fields import Asked, CamelTold


class TokenBody(Asked):
    """What the token is for. The document knows `appId` alone; the others are those of the mutation `clientTokenCreate`."""

    app_id: str | None = Field(default=None, alias="appId", description="The app that it is bound to; without one it is bound to the workspace alone.")
    end_user_id: str | None = Field(default=None, alias="endUserId", description="The end user that it is bound to, by the app's own id.")
    allowed_origins: list[str] | None = Field(default=None, alias="allowedOrigins", description="Where it may be used from; the manifest's when absent.")
    allowed_models: list[str] | None = Field(default=None, alias="allowedModels", description="The models that it may call; the manifest's when absent.")
    expires_in_seconds: int = Field(default=DEFAULT_SECONDS, alias="expiresInSeconds", description="How long it works: 300 to 900 seconds.")
    spend_cap_microusd: int | None = Field(default=None, alias="spendCapMicrousd", description="The most that it may spend; the manifest's when absent.")
    request_cap: int | None = Field(default=None, alias="requestCap", description="The most calls that it may make; the manifest's when absent.")

    def new(self, app_id: UUID | None, idempotency_key: str | None) -> NewToken:
        """The token to make."""
        return NewToken(
            app_id=app_id,
            end_user=self.end_user_id,
            allowed_origins=None if self.allowed_origins is None else tuple(self.allowed_origins),
            allowed_models=None if self.allowed_models is None else tuple(self.allowed_models),
            seconds=self.expires_in_seconds,
            spend_cap_microusd=self.spend_cap_microusd,
            request_cap=self.request_cap,
            idempotency_key=idempotency_key,
        )


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
    made = await client_tokens.create(ask.caller, ask.given.new(app_id, ask.idempotency_key), ask.runtime.addresses, offered=offered)
    return MadeToken(token=client_tokens.sign(ask.runtime.settings.secret.get_secret_value(), made), expires_at=made.expires_at)


OPERATIONS: tuple[Operation[Any], ...] = (
    Operation("POST", "/v1/client-tokens", "Make a short-lived token for a browser.", TokenBody, MadeToken, _make_token, refusals=(400, 404, 409, 413, 422)),
)
"""A part of document 0."""
