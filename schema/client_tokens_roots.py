"""The mutations of client tokens; `schema/mutation.py` is made of them."""

from typing import Annotated

import strawberry

from models.enums import Scope
from resolvers import client_tokens
from schema.apps_roots import guarded, row
from schema.client_tokens import ClientToken, ClientTokenCreateInput, ClientTokenCreatePayload, ClientTokenRevokeInput, ClientTokenRevokePayload
from schema.context import Info
from schema.fields import resolved
from schema.inputs import given
from schema.scalars import Secret


@strawberry.type
class ClientTokenMutations:
    """Writes of client tokens."""

    @resolved(
        "Make a short-lived token for a browser, never wider than the caller. The payload's `token` is shown this once. "
        "Requires scope `CLIENT_TOKENS_WRITE`.",
        extensions=guarded(ClientTokenCreatePayload, Scope.CLIENT_TOKENS_WRITE),
    )
    async def client_token_create(
        self, info: Info, input: Annotated[ClientTokenCreateInput, strawberry.argument(description="What it may do.")]
    ) -> ClientTokenCreatePayload | None:
        """Make it."""
        app_id = None if (named := given(input.app_id)) is None else row("App", named, "app", "appId")
        made, token = await client_tokens.create(info.context, input.new(app_id))
        return ClientTokenCreatePayload(client_token=ClientToken.of(made), token=Secret(token))

    @resolved(
        "Revoke client tokens, one or many, at once. Requires scope `CLIENT_TOKENS_WRITE`.",
        extensions=guarded(ClientTokenRevokePayload, Scope.CLIENT_TOKENS_WRITE),
    )
    async def client_token_revoke(
        self, info: Info, input: Annotated[ClientTokenRevokeInput, strawberry.argument(description="Which.")]
    ) -> ClientTokenRevokePayload | None:
        """Revoke them."""
        if (token := given(input.id)) is not None:
            count = await client_tokens.revoke_one(info.context, row("ClientToken", token, "client token", "id"))
        elif (app := given(input.app_id)) is not None:
            count = await client_tokens.revoke_of_app(info.context, row("App", app, "app", "appId"))
        elif (end_user := given(input.end_user_id)) is not None:
            count = await client_tokens.revoke_of_end_user(info.context, row("EndUser", end_user, "end user", "endUserId"))
        else:
            count = await client_tokens.revoke_of_key(info.context, row("ApiKey", given(input.api_key_id) or "", "key", "apiKeyId"))
        return ClientTokenRevokePayload(revoked_count=count)
