"""End users: whom a customer's calls and client tokens name."""

import datetime
from typing import TYPE_CHECKING, Annotated, Self
from uuid import UUID

import strawberry
from strawberry import UNSET, field

from domain.access.end_users import EndUserView, Named
from domain.pages import PageOf
from models.enums import Scope
from resolvers import end_users as resolvers
from schema import ids, pages, ranges
from schema.access import requires
from schema.context import Info
from schema.directives import Cost
from schema.fields import resolved
from schema.ledger import LedgerAccount, account_of
from schema.limits import Limited
from schema.nodes import Node
from schema.scalars import SafeInt
from schema.sources import Report, UsageSource

if TYPE_CHECKING:
    from schema.apps import App

Beginning = Annotated[str | None, strawberry.argument(description="The end user's own ID in the app, or the start of it.")]


@strawberry.type(description="Somebody who uses a customer's product, named by the customer in calls and tokens.")
class EndUser(Node, UsageSource, Limited):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    external_id: str = field(description="The customer's own ID of the end user.")
    blocked_at: datetime.datetime | None = field(description="Since when calls for it are refused; null while they are let in.")
    first_seen_at: datetime.datetime = field(description="When it was first seen.")
    last_seen_at: datetime.datetime | None = field(description="When it was last seen, to within a minute.")
    workspace_id: strawberry.Private[UUID]
    app_id: strawberry.Private[UUID | None]
    wallet_id: strawberry.Private[UUID | None]

    @resolved("The app; null when named in calls without an app.")
    async def app(self, info: Info) -> Annotated["App", strawberry.lazy("schema.apps")] | None:
        """Load it; null too for a deleted one."""
        from schema.apps import App

        found = await info.context.apps.load(self.app_id) if self.app_id else None
        return App.of(found) if found else None

    @resolved("The end user's own prepaid account under the app; null when calls are paid by the app's workspace.")
    async def wallet(self, info: Info) -> LedgerAccount | None:
        """Load it."""
        return await account_of(info, self.workspace_id, self.wallet_id) if self.wallet_id else None

    @resolved("The usage made for it. Requires scope `USAGE_READ`.", extensions=requires(Scope.USAGE_READ))
    async def usage(
        self, info: Info, range: ranges.Over = ranges.DEFAULT_RANGE, timezone: ranges.Zone = ranges.UTC, filter: ranges.Narrowed = UNSET
    ) -> Report | None:
        """Resolve the window; what is selected is measured."""
        from schema.usage import report

        return await report(info, range, timezone, filter, of_end_user=self.subject_id)

    @classmethod
    def of(cls, end_user: EndUserView) -> Self:
        """The end user as GraphQL shows it."""
        return cls(
            id=ids.encode("EndUser", end_user.id),
            subject_id=end_user.id,
            external_id=end_user.external_id,
            blocked_at=end_user.blocked_at,
            first_seen_at=end_user.first_seen_at,
            last_seen_at=end_user.last_seen_at,
            workspace_id=end_user.workspace_id,
            app_id=end_user.app_id,
            wallet_id=end_user.wallet_id,
        )


async def end_user_named(info: Info, name: str | None, app_id: UUID | None, *, app_known: bool = True) -> EndUser | None:
    """The end user that something names; null for nobody, and for whoever may not see apps."""
    found = await info.context.end_users_named.load(Named(name, app_id, app_known)) if name is not None else None
    return EndUser.of(found) if found else None


@strawberry.type(description="An end user and its place.")
class EndUserEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: EndUser = field(description="The end user.")


@strawberry.type(description="A page of end users.")
class EndUserConnection:
    """A page of end users."""

    page: strawberry.Private[PageOf[EndUserView]]
    app_id: strawberry.Private[UUID]
    start: strawberry.Private[str | None]

    @resolved("The page.")
    def edges(self) -> list[EndUserEdge]:
        """Show the page."""
        return [EndUserEdge(cursor=pages.cursor("EndUser", each.id), node=EndUser.of(each)) for each in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[EndUser]:
        """Show the page."""
        return [EndUser.of(each) for each in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("EndUser", self.page, [each.id for each in self.page.items])

    @resolved("How many there are in all; counted only when selected.", directives=[Cost(weight="5")])
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.count(info.context, self.app_id, self.start))
