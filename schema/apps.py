"""Apps: front ends that usage can be attributed to."""

import datetime
import decimal
from typing import Self, TypeVar

import strawberry
from strawberry import UNSET, field

from domain.access.keys import UNSET as UNCHANGED
from domain.access.keys import Unset
from domain.apps.registry import AppChanges, AppView, NewApp, Order
from domain.pages import PageOf
from models.enums import Scope
from resolvers import apps as resolvers
from resolvers import client_tokens as tokens
from resolvers import deployments as deployed
from resolvers import end_users as people
from schema import ids, pages, ranges
from schema.access import requires
from schema.callers import Actor
from schema.client_tokens import ClientTokenConnection
from schema.context import Info
from schema.deployments import Deployment, DeploymentConnection
from schema.directives import PAGED
from schema.end_users import Beginning, EndUserConnection
from schema.enums import SortDirection
from schema.fields import resolved
from schema.limits import BudgetInput, Limited, LimitInput, bounds, limit_bounds
from schema.nodes import Node
from schema.scalars import JSON, URL, SafeInt, Slug
from schema.sources import Report, UsageSource
from schema.user_errors import UserError

V = TypeVar("V")


@strawberry.type(description="A front end that the service hosts, and that usage can be attributed to.")
class App(Node, UsageSource, Limited):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    slug: Slug = field(description="The globally unique handle, called `appId` in the REST API.")
    name: str = field(description="The display name.")
    description: str | None = field(description="What it is for.")
    manifest: JSON = field(
        description=(
            "How it is served and what its visitors may do, as `service.manifestSchemaUrl` describes; the maker's own keys are kept as they are."
        )
    )
    created_by: Actor = field(description="Who registered it.")
    suspended_at: datetime.datetime | None = field(
        description="Since when the kill switch is on: its tokens are refused and its files are not served; null while it works."
    )
    wallet_markup: decimal.Decimal = field(
        description="What a charge is multiplied with before an end user's wallet pays it: `\"1\"` sells at cost."
    )
    created_at: datetime.datetime = field(description="When it was registered.")
    updated_at: datetime.datetime = field(description="When its details last changed.")
    deployed: strawberry.Private[bool]

    @resolved("Where the live deployment is served; null before the first.")
    def url(self, info: Info) -> URL | None:
        """Tell it."""
        return URL(info.context.facilities.addresses.url(self.slug)) if self.deployed else None

    @resolved("What is served now; null before the first.")
    async def live_deployment(self, info: Info) -> Deployment | None:
        """Load it."""
        live = await info.context.live_deployments.load(self.subject_id)
        return Deployment.of(live) if live else None

    @resolved("All deployments, newest first.", directives=[PAGED])
    async def deployments(
        self, info: Info, first: pages.First = UNSET, after: pages.After = UNSET, last: pages.Last = UNSET, before: pages.Before = UNSET
    ) -> DeploymentConnection:
        """Read a page of them."""
        wanted = pages.page_of("Deployment", first, after, last, before)
        return DeploymentConnection(page=await deployed.page(info.context, self.subject_id, wanted), app_id=self.subject_id)

    @resolved("Its client tokens that still work, newest first.", directives=[PAGED])
    async def client_tokens(
        self, info: Info, first: pages.First = UNSET, after: pages.After = UNSET, last: pages.Last = UNSET, before: pages.Before = UNSET
    ) -> ClientTokenConnection:
        """Read a page of them."""
        wanted = pages.page_of("ClientToken", first, after, last, before)
        return ClientTokenConnection(page=await tokens.page(info.context, self.subject_id, wanted), app_id=self.subject_id)

    @resolved("Its end users, last seen first.", directives=[PAGED])
    async def end_users(
        self,
        info: Info,
        first: pages.First = UNSET,
        after: pages.After = UNSET,
        last: pages.Last = UNSET,
        before: pages.Before = UNSET,
        external_id: Beginning = UNSET,
    ) -> EndUserConnection:
        """Read a page of them."""
        wanted = pages.page_of("EndUser", first, after, last, before)
        return EndUserConnection(page=await people.page(info.context, self.subject_id, wanted, external_id or None), app_id=self.subject_id, start=external_id or None)

    @resolved("The usage attributed to it. Requires scope `USAGE_READ`.", extensions=requires(Scope.USAGE_READ))
    async def usage(
        self, info: Info, range: ranges.Over = ranges.DEFAULT_RANGE, timezone: ranges.Zone = ranges.UTC, filter: ranges.Narrowed = UNSET
    ) -> Report | None:
        """Resolve the window; what is selected is measured."""
        from schema.usage import report

        return await report(info, range, timezone, filter, of_app=self.subject_id)

    @classmethod
    def of(cls, app: AppView) -> Self:
        """The app as GraphQL shows it."""
        return cls(
            id=ids.encode("App", app.id),
            subject_id=app.id,
            slug=Slug(app.slug),
            name=app.name,
            description=app.description,
            manifest=JSON(app.manifest),
            created_by=Actor.of(app.creator),
            suspended_at=app.suspended_at,
            wallet_markup=app.wallet_markup,
            created_at=app.created_at,
            updated_at=app.updated_at,
            deployed=app.live_deployment_id is not None,
        )


@strawberry.type(description="An app and its place.")
class AppEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: App = field(description="The app.")


@strawberry.type(description="A page of apps.")
class AppConnection:
    """A page of apps."""

    page: strawberry.Private[PageOf[AppView]]

    @resolved("The page.")
    def edges(self) -> list[AppEdge]:
        """Show the page."""
        return [AppEdge(cursor=pages.cursor("App", app.id), node=App.of(app)) for app in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[App]:
        """Show the page."""
        return [App.of(app) for app in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("App", self.page, [app.id for app in self.page.items])

    @resolved("How many there are in all; counted only when selected.")
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.count(info.context))


@strawberry.input(description="The order of apps.")
class AppOrder:
    """As the contract has it."""

    field: Order = strawberry.field(description="By what.")
    direction: SortDirection = strawberry.field(description="Which way.")


LAST_CHANGED_FIRST = AppOrder(field=Order.UPDATED_AT, direction=SortDirection.DESC)


@strawberry.input(description="Input of appCreate.")
class AppCreateInput:
    """As the contract has it."""

    slug: Slug = field(description="The globally unique handle.")
    name: str = field(description="The display name.")
    description: str | None = field(description="What it is for.", default=UNSET)

    def new(self) -> NewApp:
        """The app to register."""
        return NewApp(self.slug, self.name, self.description or None)


@strawberry.input(description="Input of appUpdate. An absent field stays as it is; null clears it.")
class AppUpdateInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The app.")
    name: str | None = field(description="The display name; it cannot be cleared.", default=UNSET)
    description: str | None = field(description="What it is for.", default=UNSET)
    manifest: JSON | None = field(
        description="How it is served and what its visitors may do; replaces the old one. An error's `path` leads into it.", default=UNSET
    )
    suspended: bool | None = field(
        description="The kill switch: true refuses its tokens and stops serving its files at once.", default=UNSET
    )
    wallet_markup: decimal.Decimal | None = field(
        description="What a charge is multiplied with before an end user's wallet pays it.", default=UNSET
    )
    budgets: list[BudgetInput] | None = field(description="What it may spend; replaces the old list.", default=UNSET)
    limits: list[LimitInput] | None = field(description="How much it may call; replaces the old list.", default=UNSET)

    def changes(self) -> AppChanges:
        """What to change; raises InvalidInput."""
        return AppChanges(
            name=_given(self.name),
            description=_given(self.description),
            manifest=_given(self.manifest),
            suspended=_given(self.suspended),
            wallet_markup=_given(self.wallet_markup),
            budgets=UNCHANGED if self.budgets is UNSET else bounds(self.budgets or ()),
            limits=UNCHANGED if self.limits is UNSET else limit_bounds(self.limits or ()),
        )


@strawberry.input(description="Input of appDelete.")
class AppDeleteInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The app.")


@strawberry.input(description="Input of appTransfer.")
class AppTransferInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The app.")
    workspace_id: strawberry.ID = field(description="The workspace to give it to.")


@strawberry.type(description="Result of appCreate.")
class AppCreatePayload:
    """As the contract has it."""

    app: App | None = field(description="The app.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of appUpdate.")
class AppUpdatePayload:
    """As the contract has it."""

    app: App | None = field(description="The app.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of appDelete.")
class AppDeletePayload:
    """As the contract has it."""

    deleted_app_id: strawberry.ID | None = field(description="The ID of the app that is gone.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of appTransfer.")
class AppTransferPayload:
    """As the contract has it."""

    app: App | None = field(description="The app.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


def _given(value: V | None) -> V | Unset | None:
    return UNCHANGED if value is UNSET else value
