"""Charging again what was charged at a wrong price."""

import datetime
from typing import Annotated, Self
from uuid import UUID

import strawberry
from strawberry import UNSET, field

from domain.errors import NotFound
from domain.pages import PageOf
from domain.serving.reratings import LineView, NewRerating, ReratingView
from models import enums
from models.enums import Scope
from resolvers import catalogue, workspaces
from resolvers import reratings as resolvers
from schema import ids, pages
from schema.amounts import Money
from schema.apps_roots import guarded, row
from schema.callers import Actor
from schema.catalogue import Price
from schema.context import Info
from schema.directives import ListSize
from schema.fields import resolved
from schema.inputs import given
from schema.nodes import Failure, Job, Node
from schema.ranges import InstantRange
from schema.scalars import SafeInt
from schema.user_errors import UserError
from schema.workspaces import Workspace


@strawberry.type(description="What a re-rating means for one workspace.")
class ReratingLine:
    """As the contract has it."""

    calls: SafeInt = field(description="Calls whose charge changes.")
    before: Money = field(description="What they were charged.")
    after: Money = field(description="What they should have been charged.")
    place: strawberry.Private[UUID]

    @resolved("The workspace.")
    async def workspace(self, info: Info) -> Workspace:
        """Load it."""
        return Workspace.of(await workspaces.of_event(info.context, self.place))

    @classmethod
    def of(cls, line: LineView) -> Self:
        """The line as GraphQL shows it."""
        return cls(
            calls=SafeInt(line.calls),
            before=Money.of(line.before_microusd),
            after=Money.of(line.after_microusd),
            place=line.workspace_id,
        )


@strawberry.type(
    description=(
        "Charging again what was charged at a wrong price: first computed for a look, then posted as corrections. History stays as it is."
    )
)
class Rerating(Node, Job):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    start: datetime.datetime = field(description="The calls' inclusive start.")
    end: datetime.datetime = field(description="The calls' exclusive end.")
    reason: str = field(description="Why.")
    calls: SafeInt = field(description="Calls whose charge changes.")
    credited: Money = field(description="What is given back, summed over workspaces.")
    charged: Money = field(description="What is charged besides, summed over workspaces.")
    created_by: Actor = field(description="Who asked for it.")
    applied_by: Actor | None = field(description="Who applied it.")
    applied_at: datetime.datetime | None = field(description="When every correction was posted; null while it is a preview.")
    status: enums.JobStatus = field(description="Where the work stands: of the preview, then of applying it.")
    created_at: datetime.datetime = field(description="When it was queued.")
    progress: float | None = field(description="How far it is, 0 to 1; null when that cannot be told.")
    finished_at: datetime.datetime | None = field(description="When it reached a final status.")
    failure: Failure | None = field(description="Why it failed; null unless it failed.")
    of_price: strawberry.Private[UUID]
    key: strawberry.Private[UUID]

    @resolved("The corrected price version.")
    async def price(self, info: Info) -> Price:
        """Read it in the book."""
        return Price.of(await catalogue.version(info.context, self.of_price))

    @resolved("The workspaces concerned, largest difference first.", directives=[ListSize(slicing_arguments=["first"])])
    async def lines(
        self, info: Info, first: Annotated[int, strawberry.argument(description="At most this many, 1 to 500.")] = 50
    ) -> list[ReratingLine]:
        """Read them."""
        return [ReratingLine.of(line) for line in await resolvers.lines(info.context, self.key, first)]

    @classmethod
    def of(cls, view: ReratingView) -> Self:
        """The re-rating as GraphQL shows it."""
        return cls(
            id=ids.encode("Rerating", view.id),
            start=view.start,
            end=view.end,
            reason=view.reason,
            calls=SafeInt(view.calls),
            credited=Money.of(view.credited_microusd),
            charged=Money.of(view.charged_microusd),
            created_by=Actor.of(view.creator),
            applied_by=Actor.of(view.applier) if view.applier else None,
            applied_at=view.applied_at,
            status=view.status,
            created_at=view.created_at,
            progress=view.progress,
            finished_at=view.finished_at,
            failure=Failure(code="given_up", message=view.failure, retryable=True) if view.failure else None,
            of_price=view.price_id,
            key=view.id,
        )


@strawberry.type(description="A re-rating and its place.")
class ReratingEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: Rerating = field(description="The re-rating.")


@strawberry.type(description="A page of re-ratings.")
class ReratingConnection:
    """A page of re-ratings."""

    page: strawberry.Private[PageOf[ReratingView]]

    @resolved("The page.")
    def edges(self) -> list[ReratingEdge]:
        """Show the page."""
        return [ReratingEdge(cursor=pages.cursor("Rerating", each.id), node=Rerating.of(each)) for each in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[Rerating]:
        """Show the page."""
        return [Rerating.of(each) for each in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("Rerating", self.page, [each.id for each in self.page.items])

    @resolved("How many there are in all; counted only when selected.")
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.count(info.context))


@strawberry.input(description="Input of reratingCreate.")
class ReratingCreateInput:
    """As the contract has it."""

    price_id: strawberry.ID = field(description="The corrected price version.")
    range: InstantRange | None = field(
        description="The calls to rate again; those of the version's own time when absent.", default=UNSET
    )
    workspace_id: strawberry.ID | None = field(description="The workspace; all when absent.", default=UNSET)
    reason: str = field(description="Why.")
    idempotency_key: str = field(description="Makes a retry return the first re-rating instead of another.")

    def new(self) -> NewRerating:
        """The re-rating to make; raises NotFound for what is no price's or workspace's ID."""
        named = given(self.workspace_id)
        workspace_id = None if named is None else ids.uuid_of("Workspace", named)
        if named is not None and workspace_id is None:
            raise NotFound("workspace", path=("workspaceId",))
        return NewRerating(
            row("Price", self.price_id, "price", "priceId"),
            self.reason,
            self.idempotency_key,
            self.range.start if self.range else None,
            (self.range.end or None) if self.range else None,
            workspace_id,
        )


@strawberry.input(description="Input of reratingApply.")
class ReratingApplyInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The re-rating.")


@strawberry.type(description="Result of reratingCreate.")
class ReratingCreatePayload:
    """As the contract has it."""

    rerating: Rerating | None = field(description="The re-rating, now queued.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of reratingApply.")
class ReratingApplyPayload:
    """As the contract has it."""

    rerating: Rerating | None = field(description="The re-rating.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type
class ReratingMutations:
    """Writes of re-ratings; `schema/mutation.py` is made of them."""

    @resolved(
        "Compute what a corrected price would have charged; nothing is posted yet. Requires scope `OPERATOR`.",
        extensions=guarded(ReratingCreatePayload, Scope.OPERATOR),
    )
    async def rerating_create(
        self, info: Info, input: Annotated[ReratingCreateInput, strawberry.argument(description="What to compute.")]
    ) -> ReratingCreatePayload | None:
        """Queue it."""
        return ReratingCreatePayload(rerating=Rerating.of(await resolvers.create(info.context, input.new())))

    @resolved(
        "Post the corrections of a re-rating, in the background. Doing it twice posts them once. Requires scope `OPERATOR`.",
        extensions=guarded(ReratingApplyPayload, Scope.OPERATOR),
    )
    async def rerating_apply(
        self, info: Info, input: Annotated[ReratingApplyInput, strawberry.argument(description="The re-rating.")]
    ) -> ReratingApplyPayload | None:
        """Queue it."""
        return ReratingApplyPayload(rerating=Rerating.of(await resolvers.apply(info.context, row("Rerating", input.id, "rerating", "id"))))
