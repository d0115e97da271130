"""What is told as it happens, for as long as the credential works."""

from collections.abc import AsyncGenerator
from typing import Annotated

import strawberry

from domain.errors import NotFound
from domain.usage.records import RecordFilter
from models.enums import Scope
from resolvers import deployments
from schema import ids
from schema.access import check
from schema.context import Info
from schema.credits_roots import CreditSubscriptions
from schema.deployments import Deployment
from schema.exports_roots import ExportSubscriptions
from schema.following import followed, while_known
from schema.records import UsageRecord, UsageRecordFilter

LiveFilter = Annotated[UsageRecordFilter | None, strawberry.argument(description="Only the records that match; `range` is ignored.")]


@strawberry.type(description="Live updates, over graphql-transport-ws or graphql-sse. A stream ends when the credential does.")
class Subscription(
    CreditSubscriptions,
    ExportSubscriptions,
):
    """Streams; each has its own source, shared by all who follow it."""

    @followed("The request log as it is written: the live tail. Requires scope `USAGE_READ`.", Scope.USAGE_READ)
    async def usage_record_created(self, info: Info, filter: LiveFilter = strawberry.UNSET) -> AsyncGenerator[UsageRecord, None]:
        """Follow the request log."""
        check(info.context, Scope.USAGE_READ)
        wanted = await filter.wanted(info) if filter else RecordFilter()
        source = info.context.facilities.feed.follow(info.context.known, wanted)
        async for record in while_known(info.context, source, Scope.USAGE_READ):
            yield UsageRecord.of(record)

    @followed(
        "A deployment, at once and then at every change of its status or log, until it is final. Requires scope `APPS_READ`.", Scope.APPS_READ
    )
    async def deployment_changed(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The deployment.")]
    ) -> AsyncGenerator[Deployment, None]:
        """Follow a deployment."""
        check(info.context, Scope.APPS_READ)
        found = ids.uuid_of("Deployment", id)
        if found is None:
            raise NotFound("deployment", path=("id",))
        async for deployment in while_known(info.context, deployments.changes(info.context, found), Scope.APPS_READ):
            yield Deployment.of(deployment)
