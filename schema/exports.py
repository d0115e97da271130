"""Files made from reports and lists, in the background."""

import datetime
from typing import Self

import strawberry
from strawberry import field

from domain.errors import InvalidInput
from domain.pages import PageOf
from domain.usage.exports import ExportView, Report, Source
from domain.usage.metrics import Dimension
from domain.usage.metrics import UsageFilter as Narrowing
from domain.usage.windows import Granularity
from models import enums
from resolvers import exports as resolvers
from resolvers import usage
from schema import ids, pages
from schema.audit import AuditEventFilter
from schema.callers import Actor
from schema.context import Info
from schema.fields import resolved
from schema.ledger import TransferFilter
from schema.nodes import Failure, Job, Node
from schema.ranges import UsageFilter, UsageRange
from schema.records import UsageRecordFilter
from schema.scalars import URL, SafeInt, TimeZone


@strawberry.type(description="A file made from a report or a list, in the background.")
class Export(Node, Job):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    dataset: enums.ExportDataset = field(description="What is in it.")
    format: enums.ExportFormat = field(description="Its format.")
    columns: enums.ExportColumns = field(description="Its columns.")
    rows: SafeInt = field(description="Rows written so far.")
    bytes: SafeInt = field(description="Its size in bytes so far.")
    expires_at: datetime.datetime | None = field(description="When the file is deleted.")
    created_by: Actor = field(description="Who asked for it.")
    status: enums.JobStatus = field(description="Where the work stands.")
    created_at: datetime.datetime = field(description="When it was queued.")
    progress: float | None = field(description="How far it is, 0 to 1; null when that cannot be told.")
    finished_at: datetime.datetime | None = field(description="When it reached a final status.")
    failure: Failure | None = field(description="Why it failed; null unless it failed.")
    view: strawberry.Private[ExportView]

    @resolved("Where to download it, whole or in ranges; null until it has succeeded and after `expiresAt`.")
    def url(self, info: Info) -> URL | None:
        """Sign the link."""
        link = resolvers.link(info.context, self.view)
        return None if link is None else URL(link)

    @classmethod
    def of(cls, export: ExportView) -> Self:
        """The export as GraphQL shows it."""
        failure = None
        if export.failure_code is not None:
            failure = Failure(code=export.failure_code, message=export.failure or "", retryable=False)
        return cls(
            id=ids.encode("Export", export.id),
            dataset=export.dataset,
            format=export.format,
            columns=export.columns,
            rows=SafeInt(export.rows),
            bytes=SafeInt(export.bytes),
            expires_at=export.expires_at,
            created_by=Actor.of(export.creator),
            status=export.status,
            created_at=export.created_at,
            progress=export.progress,
            finished_at=export.finished_at,
            failure=failure,
            view=export,
        )


@strawberry.type(description="An export and its place.")
class ExportEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: Export = field(description="The export.")


@strawberry.type(description="A page of exports.")
class ExportConnection:
    """A page of exports."""

    page: strawberry.Private[PageOf[ExportView]]

    @resolved("The page.")
    def edges(self) -> list[ExportEdge]:
        """Show the page."""
        return [ExportEdge(cursor=pages.cursor("Export", export.id), node=Export.of(export)) for export in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[Export]:
        """Show the page."""
        return [Export.of(export) for export in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("Export", self.page, [export.id for export in self.page.items])

    @resolved("How many there are in all; counted only when selected.")
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.count(info.context))


@strawberry.input(description="The usage report to export: one row for each bucket and group.")
class UsageExportInput:
    """As the contract has it."""

    range: UsageRange = field(description="The window.")
    timezone: TimeZone = field(description="The zone in which days, weeks and months begin.", default=TimeZone("UTC"))
    granularity: Granularity = field(description="The bucket.", default=Granularity.DAY)
    by: list[Dimension] = field(description="Dimensions to split by; none when empty.", default_factory=list)
    tag: str | None = field(description="The name of the tag, when `by` holds TAG.", default=strawberry.UNSET)
    filter: UsageFilter | None = field(description="Only the usage that matches.", default=strawberry.UNSET)

    async def wanted(self, info: Info) -> Report:
        """The report as the domain takes it."""
        return Report(
            window=await usage.window(info.context, self.range.wanted(), self.timezone),
            granularity=self.granularity,
            by=tuple(self.by),
            tag=self.tag or None,
            filter=self.filter.wanted(None) if self.filter else Narrowing(),
        )


@strawberry.input(description="What an export holds: exactly one of these.", one_of=True)
class ExportSource:
    """As the contract has it."""

    usage: UsageExportInput | None = field(description="A usage report.", default=strawberry.UNSET)
    usage_records: UsageRecordFilter | None = field(description="Usage records.", default=strawberry.UNSET)
    transactions: TransferFilter | None = field(description="The credit statement. Needs scope `BILLING_READ` too.", default=strawberry.UNSET)
    audit_events: AuditEventFilter | None = field(description="The audit log. Needs scope `AUDIT_READ` too.", default=strawberry.UNSET)

    async def wanted(self, info: Info) -> Source:
        """The source as the domain takes it."""
        if self.usage:
            return await self.usage.wanted(info)
        if self.usage_records:
            return await self.usage_records.wanted(info)
        if self.transactions:
            return await self.transactions.wanted(info)
        if self.audit_events:
            return await self.audit_events.wanted(info)
        raise InvalidInput("Say what to export.", path=("source",))


@strawberry.input(description="Input of exportCreate.")
class ExportCreateInput:
    """As the contract has it."""

    source: ExportSource = field(description="What it holds.")
    format: enums.ExportFormat = field(description="Its format.", default=enums.ExportFormat.CSV)
    columns: enums.ExportColumns = field(description="Its columns.", default=enums.ExportColumns.NATIVE)
    idempotency_key: str | None = field(
        description="Makes a retry return the first result instead of doing it again.", default=strawberry.UNSET
    )
