"""What is told as it happens, for as long as the credential works."""

from collections.abc import AsyncGenerator
from typing import Annotated

import strawberry

from domain.usage.records import RecordFilter
from models.enums import Scope
from schema.access import check
from schema.context import Info
from schema.exports_roots import ExportSubscriptions
from schema.following import followed, while_known
from schema.records import UsageRecord, UsageRecordFilter

LiveFilter = Annotated[UsageRecordFilter | None, strawberry.argument(description="Only the records that match; `range` is ignored.")]


@strawberry.type(description="Live updates, over graphql-transport-ws or graphql-sse. A stream ends when the credential does.")
class Subscription(
    ExportSubscriptions,
):
    """Streams; each has its own source, shared by all who follow it."""

    @followed("The request log as it is written: the live tail. Requires scope `USAGE_READ`.", Scope.USAGE_READ)
    async def usage_record_created(self, info: Info, filter: LiveFilter = strawberry.UNSET) -> AsyncGenerator[UsageRecord, None]:
        """Follow the request log."""
        check(info.context, Scope.USAGE_READ)
        wanted = filter.wanted(info) if filter else RecordFilter()
        source = info.context.facilities.feed.follow(info.context.known, wanted)
        async for record in while_known(info.context, source, Scope.USAGE_READ):
            yield UsageRecord.of(record)
