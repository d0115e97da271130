"""Promotional credit."""

import datetime
from collections.abc import Sequence
from typing import Self
from uuid import UUID

import strawberry
from strawberry import field

from domain.money.grants import GrantStatus, GrantView, NewGrant
from domain.pages import PageOf
from resolvers import billing as resolvers
from schema import ids, pages
from schema.amounts import Money
from schema.apps import App
from schema.callers import Actor
from schema.catalogue import Model, models_named
from schema.context import Info
from schema.fields import resolved
from schema.ledger import LedgerAccount, account_of
from schema.nodes import Node
from schema.scalars import MicroUsd, SafeInt


@strawberry.type(
    description="Promotional credit, with an account of its own. It is spent before cash: lower `priority` first, then what expires first."
)
class Grant(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    amount: Money = field(description="How much was given.")
    remaining: Money = field(description="How much is left.")
    status: GrantStatus = field(description="Whether it can be spent.")
    priority: int = field(description="Lower is spent first.")
    reason: str = field(description="Why it was given.")
    created_by: Actor = field(description="Who gave it.")
    created_at: datetime.datetime = field(description="When it was given.")
    expires_at: datetime.datetime | None = field(description="When the rest is booked as breakage; null means never.")
    shown: strawberry.Private[GrantView]

    @resolved("Models it pays for; null means all.")
    def models(self, info: Info) -> list[Model] | None:
        """Read them in the book."""
        return models_named(info, self.shown.models)

    @resolved("Apps it pays for; null means all calls.")
    async def apps(self, info: Info) -> list[App] | None:
        """Load those that there still are."""
        if self.shown.apps is None:
            return None
        return [App.of(app) for app in await info.context.apps.load_many(list(self.shown.apps)) if app]

    @resolved("Its account.")
    async def account(self, info: Info) -> LedgerAccount:
        """Load it."""
        return await account_of(info, self.shown.workspace_id, self.shown.id)

    @classmethod
    def of(cls, grant: GrantView) -> Self:
        """The grant as GraphQL shows it."""
        return cls(
            id=ids.encode("Grant", grant.id),
            amount=Money.of(grant.amount),
            remaining=Money.of(grant.remaining),
            status=grant.status,
            priority=grant.priority,
            reason=grant.reason,
            created_by=Actor.of(grant.creator),
            created_at=grant.created_at,
            expires_at=grant.expires_at,
            shown=grant,
        )


@strawberry.type(description="A grant and its place.")
class GrantEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: Grant = field(description="The grant.")


@strawberry.type(description="A page of grants.")
class GrantConnection:
    """A page of grants."""

    workspace_id: strawberry.Private[UUID]
    page: strawberry.Private[PageOf[GrantView]]
    statuses: strawberry.Private[Sequence[GrantStatus]]

    @resolved("The page.")
    def edges(self) -> list[GrantEdge]:
        """Show the page."""
        return [GrantEdge(cursor=pages.cursor("Grant", grant.id), node=Grant.of(grant)) for grant in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[Grant]:
        """Show the page."""
        return [Grant.of(grant) for grant in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("Grant", self.page, [grant.id for grant in self.page.items])

    @resolved("How many there are in all; counted only when selected.")
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.count_of_grants(info.context, self.workspace_id, self.statuses))



@strawberry.input(description="Input of grantCreate.")
class GrantCreateInput:
    """As the contract has it."""

    workspace_id: strawberry.ID | None = field(description="The workspace; the current one when absent.", default=strawberry.UNSET)
    amount: MicroUsd = field(description="How much.")
    reason: str = field(description="Why.")
    priority: int = field(description="Lower is spent first.", default=100)
    models: list[str] | None = field(description="Models it pays for, by name; all when absent.", default=strawberry.UNSET)
    apps: list[strawberry.ID] | None = field(description="Apps it pays for; all calls when absent.", default=strawberry.UNSET)
    expires_at: datetime.datetime | None = field(
        description="When the rest is booked as breakage; never when absent.", default=strawberry.UNSET
    )
    idempotency_key: str = field(description="Makes a retry give it once.")

    def new(self) -> NewGrant:
        """The grant to give; an ID that is no app's is an app that there is not."""
        return NewGrant(
            amount_microusd=self.amount,
            reason=self.reason,
            idempotency_key=self.idempotency_key,
            priority=self.priority,
            models=tuple(self.models) if isinstance(self.models, list) else None,
            apps=tuple(ids.uuid_of("App", app) or UUID(int=0) for app in self.apps) if isinstance(self.apps, list) else None,
            expires_at=self.expires_at or None,
        )


@strawberry.input(description="Input of grantRevoke.")
class GrantRevokeInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The grant.")
    reason: str = field(description="Why.")
