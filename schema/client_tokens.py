"""Tokens that browsers hold."""

import datetime
from typing import TYPE_CHECKING, Annotated, Self
from uuid import UUID

import strawberry
from strawberry import UNSET, field

from domain.access.client_tokens import NewToken, TokenView
from domain.pages import PageOf
from resolvers import client_tokens as resolvers
from schema import ids, pages
from schema.amounts import Money
from schema.callers import Actor
from schema.catalogue import Model, models_named
from schema.context import Info
from schema.end_users import EndUser, end_user_named
from schema.fields import resolved
from schema.inputs import given
from schema.nodes import Node
from schema.scalars import MicroUsd, SafeInt, Secret
from schema.user_errors import UserError

if TYPE_CHECKING:
    from schema.apps import App


@strawberry.type(description="A short-lived token that a browser can hold. It is never wider than the caller who made it.")
class ClientToken(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    created_by: Actor = field(description="Who made it.")
    allowed_origins: list[str] | None = field(description="Browser origins it may be used from; null means all.")
    spend_cap: Money | None = field(description="The most it may spend; null means no cap of its own.")
    spent: Money = field(description="What it has spent, calls under way included.")
    request_cap: int | None = field(description="The most calls it may make; null means no cap of its own.")
    requests: SafeInt = field(description="Calls it has made.")
    created_at: datetime.datetime = field(description="When it was made.")
    expires_at: datetime.datetime = field(description="When it stops working.")
    revoked_at: datetime.datetime | None = field(description="When it was revoked.")
    app_id: strawberry.Private[UUID | None]
    model_names: strawberry.Private[tuple[str, ...] | None]
    end_user_name: strawberry.Private[str | None]

    @resolved("The app it is bound to; null when bound to the workspace only.")
    async def app(self, info: Info) -> Annotated["App", strawberry.lazy("schema.apps")] | None:
        """Load it."""
        from schema.apps import App

        found = await info.context.apps.load(self.app_id) if self.app_id else None
        return App.of(found) if found else None

    @resolved("The end user it is bound to.")
    async def end_user(self, info: Info) -> EndUser | None:
        """Load it."""
        return await end_user_named(info, self.end_user_name, self.app_id)

    @resolved("Models it may call; null means all.")
    def allowed_models(self, info: Info) -> list[Model] | None:
        """Read them in the book."""
        return models_named(info, self.model_names)

    @classmethod
    def of(cls, token: TokenView) -> Self:
        """The token as GraphQL shows it."""
        return cls(
            id=ids.encode("ClientToken", token.id),
            created_by=Actor.of(token.creator),
            allowed_origins=None if token.allowed_origins is None else list(token.allowed_origins),
            spend_cap=None if token.spend_cap_microusd is None else Money.of(token.spend_cap_microusd),
            spent=Money.of(token.spent_microusd),
            request_cap=token.request_cap,
            requests=SafeInt(token.requests),
            created_at=token.created_at,
            expires_at=token.expires_at,
            revoked_at=token.revoked_at,
            app_id=token.app_id,
            model_names=token.allowed_models,
            end_user_name=token.end_user,
        )


@strawberry.type(description="A client token and its place.")
class ClientTokenEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: ClientToken = field(description="The client token.")


@strawberry.type(description="A page of client tokens.")
class ClientTokenConnection:
    """A page of tokens."""

    page: strawberry.Private[PageOf[TokenView]]
    app_id: strawberry.Private[UUID]

    @resolved("The page.")
    def edges(self) -> list[ClientTokenEdge]:
        """Show the page."""
        return [ClientTokenEdge(cursor=pages.cursor("ClientToken", each.id), node=ClientToken.of(each)) for each in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[ClientToken]:
        """Show the page."""
        return [ClientToken.of(each) for each in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("ClientToken", self.page, [each.id for each in self.page.items])

    @resolved("How many there are in all; counted only when selected.")
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.count(info.context, self.app_id))


@strawberry.input(description="Input of clientTokenCreate.")
class ClientTokenCreateInput:
    """As the contract has it."""

    app_id: strawberry.ID | None = field(description="The app to bind the token to.", default=UNSET)
    end_user_id: str | None = field(description="The end user to bind the token to, by the app's own ID.", default=UNSET)
    allowed_origins: list[str] | None = field(description="Browser origins it may be used from; the manifest's when absent.", default=UNSET)
    allowed_models: list[str] | None = field(description="Models it may call, by name; the manifest's when absent.", default=UNSET)
    expires_in_seconds: int = field(description="Seconds it works for, 300 to 900.", default=900)
    spend_cap: MicroUsd | None = field(description="The most it may spend; the manifest's when absent.", default=UNSET)
    request_cap: int | None = field(description="The most calls it may make; the manifest's when absent.", default=UNSET)

    def new(self, app_id: UUID | None) -> NewToken:
        """The token to make."""
        return NewToken(
            app_id=app_id,
            end_user=given(self.end_user_id),
            allowed_origins=tuple(self.allowed_origins) if self.allowed_origins is not UNSET and self.allowed_origins is not None else None,
            allowed_models=tuple(self.allowed_models) if self.allowed_models is not UNSET and self.allowed_models is not None else None,
            seconds=self.expires_in_seconds,
            spend_cap_microusd=given(self.spend_cap),
            request_cap=given(self.request_cap),
        )


@strawberry.type(description="Result of clientTokenCreate.")
class ClientTokenCreatePayload:
    """As the contract has it."""

    client_token: ClientToken | None = field(description="The client token.", default=None)
    token: Secret | None = field(description="The token itself, shown this once.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.input(description="Input of clientTokenRevoke. Exactly one of these.", one_of=True)
class ClientTokenRevokeInput:
    """As the contract has it."""

    id: strawberry.ID | None = field(description="This token.", default=UNSET)
    app_id: strawberry.ID | None = field(description="Every token of this app.", default=UNSET)
    api_key_id: strawberry.ID | None = field(description="Every token that this key made.", default=UNSET)
    end_user_id: strawberry.ID | None = field(description="Every token of this end user.", default=UNSET)


@strawberry.type(description="Result of clientTokenRevoke.")
class ClientTokenRevokePayload:
    """As the contract has it."""

    revoked_count: int | None = field(description="How many worked until now.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)
