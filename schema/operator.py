"""The whole service, for the people who run it."""

import datetime
from typing import Annotated, Self

import strawberry
from strawberry import UNSET, field

from domain.access.workspaces import WorkspaceView
from domain.duties import JobView
from domain.money.books import Check, Report
from domain.pages import PageOf
from models import enums
from models.enums import Scope
from resolvers import markup, reconciliations, reratings, upstreams
from resolvers import operator as resolvers
from schema import audit, pages, ranges
from schema.access import requires
from schema.amounts import Money
from schema.audit import AuditEventConnection
from schema.context import Info
from schema.directives import PAGED, Cost, ListSize
from schema.fields import resolved
from schema.ledger import LedgerAccount
from schema.markup import MarkupRuleConnection
from schema.nodes import Failure, Job
from schema.reconciliations import ReconciliationConnection
from schema.reratings import ReratingConnection
from schema.scalars import SafeInt
from schema.sources import UsageSource
from schema.upstreams import Upstream
from schema.usage import UsageReport, report
from schema.workspaces import Workspace


@strawberry.type(description="A workspace and its place.")
class WorkspaceEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: Workspace = field(description="The workspace.")


@strawberry.type(description="A page of workspaces.")
class WorkspaceConnection:
    """A page of all workspaces."""

    page: strawberry.Private[PageOf[WorkspaceView]]
    search: strawberry.Private[str | None]

    @resolved("The page.")
    def edges(self) -> list[WorkspaceEdge]:
        """Show the page."""
        return [WorkspaceEdge(cursor=pages.cursor("Workspace", each.id), node=Workspace.of(each)) for each in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[Workspace]:
        """Show the page."""
        return [Workspace.of(each) for each in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("Workspace", self.page, [each.id for each in self.page.items])

    @resolved("How many there are in all; counted only when selected.")
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.workspace_count(info.context, self.search))


@strawberry.type(description="One thing that must hold, for example that balances equal the sum of their transfers.")
class BooksCheck:
    """As the contract has it."""

    name: str = field(description="Its stable name, for example `balance_equals_transfers`.")
    description: str = field(description="What must hold, in a sentence.")
    sound: bool = field(description="Whether it holds.")
    broken: SafeInt = field(description="How many rows break it.")
    difference: Money = field(description="By how much, in all.")
    examples: list[str] = field(description="Some that break it, for a person to look at.")

    @classmethod
    def of(cls, check: Check) -> Self:
        """The check as GraphQL shows it."""
        return cls(
            name=check.name,
            description=check.description,
            sound=check.sound,
            broken=SafeInt(check.broken),
            difference=Money.of(check.difference_microusd),
            examples=list(check.examples),
        )


@strawberry.type(description="Whether the books are sound.")
class BooksReport:
    """As the contract has it."""

    sound: bool = field(description="Whether every check holds.")
    checked_at: datetime.datetime = field(description="When they were checked.")
    checks: list[BooksCheck] = field(description="The checks.")

    @classmethod
    def of(cls, found: Report) -> Self:
        """The report as GraphQL shows it."""
        return cls(sound=found.sound, checked_at=found.checked_at, checks=[BooksCheck.of(check) for check in found.checks])


@strawberry.type(description="A background job as the operator sees it.")
class BackgroundJob(Job):
    """As the contract has it."""

    function: str = field(description="The job's function, for example `stripe_fulfil`.")
    job_id: str = field(description="The queue's own ID of the job.")
    tries: int = field(description="How often it was tried.")
    status: enums.JobStatus = field(description="Where the work stands.")
    created_at: datetime.datetime = field(description="When it was queued.")
    progress: float | None = field(description="How far it is, 0 to 1; null when that cannot be told.")
    finished_at: datetime.datetime | None = field(description="When it reached a final status.")
    failure: Failure | None = field(description="Why it failed; null unless it failed.")

    @classmethod
    def of(cls, job: JobView) -> Self:
        """The job as GraphQL shows it."""
        failed = job.status is enums.JobStatus.FAILED
        return cls(
            function=job.kind,
            job_id=str(job.id),
            tries=job.tries,
            status=job.status,
            created_at=job.created_at,
            progress=None,
            finished_at=job.finished_at,
            failure=Failure(code="given_up", message=job.failure or "It failed without a word.", retryable=True) if failed else None,
        )


@strawberry.type(description="The whole service, for the people who run it.")
class Operator(UsageSource):
    """As the contract has it."""

    @resolved("All workspaces.", directives=[PAGED])
    async def workspaces(
        self,
        info: Info,
        first: pages.First = UNSET,
        after: pages.After = UNSET,
        last: pages.Last = UNSET,
        before: pages.Before = UNSET,
        search: Annotated[
            str | None, strawberry.argument(description="Part of a name, a member's address, or a Stripe customer ID.")
        ] = UNSET,
    ) -> WorkspaceConnection:
        """Read a page of them."""
        sought = search or None
        page = await resolvers.page_of_workspaces(info.context, pages.page_of("Workspace", first, after, last, before), sought)
        return WorkspaceConnection(page=page, search=sought)

    @resolved(
        "Background jobs that failed and are not dealt with, newest first.",
        directives=[ListSize(slicing_arguments=["first"])],
    )
    async def failed_jobs(
        self, info: Info, first: Annotated[int, strawberry.argument(description="At most this many, 1 to 100.")] = 20
    ) -> list[BackgroundJob]:
        """Read them."""
        return [BackgroundJob.of(job) for job in await resolvers.failed_jobs(info.context, first)]

    @resolved("Whether the books are sound, checked now.", directives=[Cost(weight="50")])
    async def books(self, info: Info) -> BooksReport:
        """Look at them."""
        return BooksReport.of(await resolvers.report(info.context))

    @resolved("The service's own accounts: payments, revenue, promotions and the like.")
    async def ledger_accounts(self, info: Info) -> list[LedgerAccount]:
        """Add them up."""
        return [LedgerAccount.of(account) for account in await resolvers.accounts(info.context)]

    @resolved("What makes a charge of a list value, newest first.", directives=[PAGED])
    async def markup_rules(
        self, info: Info, first: pages.First = UNSET, after: pages.After = UNSET, last: pages.Last = UNSET, before: pages.Before = UNSET
    ) -> MarkupRuleConnection:
        """Read a page of them."""
        return MarkupRuleConnection(page=await markup.page(info.context, pages.page_of("MarkupRule", first, after, last, before)))

    @resolved("Re-ratings, newest first.", directives=[PAGED])
    async def reratings(
        self, info: Info, first: pages.First = UNSET, after: pages.After = UNSET, last: pages.Last = UNSET, before: pages.Before = UNSET
    ) -> ReratingConnection:
        """Read a page of them."""
        return ReratingConnection(page=await reratings.page(info.context, pages.page_of("Rerating", first, after, last, before)))

    @resolved("Comparisons of our books with providers' bills, newest first.", directives=[PAGED])
    async def reconciliations(
        self, info: Info, first: pages.First = UNSET, after: pages.After = UNSET, last: pages.Last = UNSET, before: pages.Before = UNSET
    ) -> ReconciliationConnection:
        """Read a page of them."""
        return ReconciliationConnection(page=await reconciliations.page(info.context, pages.page_of("Reconciliation", first, after, last, before)))

    @resolved("Every change made anywhere, newest first.", directives=[PAGED])
    async def audit_events(
        self,
        info: Info,
        first: pages.First = UNSET,
        after: pages.After = UNSET,
        last: pages.Last = UNSET,
        before: pages.Before = UNSET,
        filter: audit.Filter = UNSET,
    ) -> AuditEventConnection:
        """Read a page of them."""
        return await audit.events(info, first, after, last, before, filter, everywhere=True)

    @resolved("The usage of all workspaces, with margins. Requires scope `OPERATOR`.", extensions=requires(Scope.OPERATOR))
    async def usage(
        self, info: Info, range: ranges.Over = ranges.DEFAULT_RANGE, timezone: ranges.Zone = ranges.UTC, filter: ranges.Narrowed = UNSET
    ) -> UsageReport | None:
        """Resolve the window; what is selected is measured over all workspaces."""
        return await report(info, range, timezone, filter, everywhere=True)

    @resolved("Where calls are sent, and how that goes.")
    async def upstreams(self, info: Info) -> list[Upstream]:
        """Read what every process knows of them."""
        return [Upstream.of(upstream) for upstream in await upstreams.seen(info.context)]
