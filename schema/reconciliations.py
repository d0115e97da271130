"""Our computed cost beside what providers billed."""

import datetime
from typing import Annotated, Self
from uuid import UUID

import strawberry
from strawberry import UNSET, field

from domain.money.reconciliations import LineView, NewReconciliation, ReconciliationView
from domain.pages import PageOf
from models import enums
from models.enums import Scope
from resolvers import reconciliations as resolvers
from schema import ids, pages
from schema.amounts import Money
from schema.apps_roots import guarded, row
from schema.callers import Actor
from schema.context import Info
from schema.directives import ListSize
from schema.fields import resolved
from schema.ledger import Transfer
from schema.nodes import Failure, Job, Node
from schema.ranges import InstantRange
from schema.scalars import SafeInt
from schema.user_errors import UserError


@strawberry.type(description="One line of a provider's bill.")
class ReconciliationLine:
    """As the contract has it."""

    item: str = field(description="The provider's name of the model or item.")
    used_on: datetime.date | None = field(description="The day; null when the bill does not split by day.")
    computed: Money = field(description="What we computed.")
    billed: Money = field(description="What the provider billed.")
    difference: Money = field(description="`billed` less `computed`.")

    @classmethod
    def of(cls, line: LineView) -> Self:
        """The line as GraphQL shows it."""
        return cls(
            item=line.item,
            used_on=line.used_on,
            computed=Money.of(line.computed_microusd),
            billed=Money.of(line.billed_microusd),
            difference=Money.of(line.billed_microusd - line.computed_microusd),
        )


@strawberry.type(description="Our computed cost beside what a provider billed.")
class Reconciliation(Node, Job):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    provider: str = field(description="The provider.")
    source: str = field(description="Where the bill comes from, for example a file's name or `usage API`.")
    start: datetime.datetime = field(description="The inclusive start of the period.")
    end: datetime.datetime = field(description="The exclusive end of the period.")
    computed: Money = field(description="What we computed from our attempts.")
    billed: Money = field(description="What the provider billed.")
    difference: Money = field(description="`billed` less `computed`.")
    coverage: float = field(description="The part of the bill that our attempts explain, 0 to 1.")
    approved_by: Actor | None = field(description="Who approved it.")
    approved_at: datetime.datetime | None = field(description="When it was approved; null while it is open.")
    status: enums.JobStatus = field(description="Where the work stands.")
    created_at: datetime.datetime = field(description="When it was queued.")
    progress: float | None = field(description="How far it is, 0 to 1; null when that cannot be told.")
    finished_at: datetime.datetime | None = field(description="When it reached a final status.")
    failure: Failure | None = field(description="Why it failed; null unless it failed.")
    key: strawberry.Private[UUID]
    booked: strawberry.Private[tuple[UUID, UUID] | None]

    @resolved("The same, line by line of the bill, largest difference first.", directives=[ListSize(slicing_arguments=["first"])])
    async def lines(
        self, info: Info, first: Annotated[int, strawberry.argument(description="At most this many, 1 to 500.")] = 50
    ) -> list[ReconciliationLine]:
        """Read them."""
        return [ReconciliationLine.of(line) for line in await resolvers.lines(info.context, self.key, first)]

    @resolved("Adjusting transfers, posted on approval.")
    async def transfers(self, info: Info) -> list[Transfer]:
        """Read them."""
        return [Transfer.of(transfer) for transfer in await resolvers.transfers(info.context, self.booked)]

    @classmethod
    def of(cls, view: ReconciliationView) -> Self:
        """The reconciliation as GraphQL shows it."""
        return cls(
            id=ids.encode("Reconciliation", view.id),
            provider=view.provider,
            source=view.source,
            start=view.start,
            end=view.end,
            computed=Money.of(view.computed_microusd),
            billed=Money.of(view.billed_microusd),
            difference=Money.of(view.difference_microusd),
            coverage=view.coverage,
            approved_by=Actor.of(view.approver) if view.approver else None,
            approved_at=view.approved_at,
            status=view.status,
            created_at=view.created_at,
            progress=view.progress,
            finished_at=view.finished_at,
            failure=Failure(code="bill_unreadable", message=view.failure, retryable=False) if view.failure else None,
            key=view.id,
            booked=view.transfer,
        )


@strawberry.type(description="A reconciliation and its place.")
class ReconciliationEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: Reconciliation = field(description="The reconciliation.")


@strawberry.type(description="A page of reconciliations.")
class ReconciliationConnection:
    """A page of reconciliations."""

    page: strawberry.Private[PageOf[ReconciliationView]]

    @resolved("The page.")
    def edges(self) -> list[ReconciliationEdge]:
        """Show the page."""
        return [ReconciliationEdge(cursor=pages.cursor("Reconciliation", each.id), node=Reconciliation.of(each)) for each in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[Reconciliation]:
        """Show the page."""
        return [Reconciliation.of(each) for each in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("Reconciliation", self.page, [each.id for each in self.page.items])

    @resolved("How many there are in all; counted only when selected.")
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.count(info.context))


@strawberry.input(description="Input of reconciliationCreate.")
class ReconciliationCreateInput:
    """As the contract has it."""

    provider: str = field(description="The provider.")
    range: InstantRange = field(description="The period of the bill.")
    bill: str | None = field(description="The bill as CSV, 10 MB at most; read from the provider's usage API when absent.", default=UNSET)
    source: str | None = field(description="Where the bill comes from, for example a file's name.", default=UNSET)
    idempotency_key: str = field(description="Makes a retry return the first reconciliation instead of another.")

    def new(self) -> NewReconciliation:
        """The comparison to make."""
        bill = self.bill if isinstance(self.bill, str) else None
        return NewReconciliation(self.provider, self.range.start, self.range.end or None, bill, self.source or None, self.idempotency_key)


@strawberry.input(description="Input of reconciliationApprove.")
class ReconciliationApproveInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The reconciliation.")
    reason: str = field(description="Why the difference is accepted.")


@strawberry.type(description="Result of reconciliationCreate.")
class ReconciliationCreatePayload:
    """As the contract has it."""

    reconciliation: Reconciliation | None = field(description="The reconciliation, now queued.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of reconciliationApprove.")
class ReconciliationApprovePayload:
    """As the contract has it."""

    reconciliation: Reconciliation | None = field(description="The reconciliation.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type
class ReconciliationMutations:
    """Writes of reconciliations; `schema/mutation.py` is made of them."""

    @resolved(
        "Compare our books with a provider's bill, in the background. Requires scope `OPERATOR`.",
        extensions=guarded(ReconciliationCreatePayload, Scope.OPERATOR),
    )
    async def reconciliation_create(
        self, info: Info, input: Annotated[ReconciliationCreateInput, strawberry.argument(description="The bill.")]
    ) -> ReconciliationCreatePayload | None:
        """Queue it."""
        return ReconciliationCreatePayload(reconciliation=Reconciliation.of(await resolvers.create(info.context, input.new())))

    @resolved(
        "Approve a reconciliation and post its adjusting transfers. Doing it twice posts them once. Requires scope `OPERATOR`.",
        extensions=guarded(ReconciliationApprovePayload, Scope.OPERATOR),
    )
    async def reconciliation_approve(
        self, info: Info, input: Annotated[ReconciliationApproveInput, strawberry.argument(description="The reconciliation.")]
    ) -> ReconciliationApprovePayload | None:
        """Book it."""
        key = row("Reconciliation", input.id, "reconciliation", "id")
        return ReconciliationApprovePayload(reconciliation=Reconciliation.of(await resolvers.approve(info.context, key, input.reason)))
