"""The root fields of exports."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated

import strawberry
from strawberry import UNSET, field

from domain.errors import NotFound
from domain.usage.exports import ExportView
from models.enums import JobStatus, Scope
from resolvers import exports
from schema import ids, pages
from schema.access import Requires, check, requires
from schema.context import Info
from schema.directives import PAGED
from schema.exports import Export, ExportConnection, ExportCreateInput
from schema.fields import resolved
from schema.following import followed, while_known
from schema.inputs import given
from schema.user_errors import Repairable, UserError

LOOK_SECONDS = 0.5
FINAL = (JobStatus.SUCCEEDED, JobStatus.FAILED)


@strawberry.type(description="Result of exportCreate.")
class ExportCreatePayload:
    """As the contract has it."""

    export: Export | None = field(description="The export, now queued.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type
class ExportQueries:
    """Reads of exports."""

    @resolved("Exports of the workspace, newest first. Requires scope `USAGE_READ`.", extensions=requires(Scope.USAGE_READ), directives=[PAGED])
    async def exports(
        self, info: Info, first: pages.First = UNSET, after: pages.After = UNSET, last: pages.Last = UNSET, before: pages.Before = UNSET
    ) -> ExportConnection | None:
        """Read a page of them."""
        return ExportConnection(page=await exports.page(info.context, pages.page_of("Export", first, after, last, before)))


@strawberry.type
class ExportMutations:
    """Writes of exports."""

    @resolved(
        "Make a file of a report or list in the background. Requires scope `USAGE_READ`.",
        extensions=[Repairable(ExportCreatePayload), Requires(Scope.USAGE_READ)],
    )
    async def export_create(
        self, info: Info, input: Annotated[ExportCreateInput, strawberry.argument(description="What to export.")]
    ) -> ExportCreatePayload | None:
        """Queue it."""
        source = await input.source.wanted(info)
        export = await exports.create(info.context, source, input.format, input.columns, given(input.idempotency_key))
        return ExportCreatePayload(export=Export.of(export))


@strawberry.type
class ExportSubscriptions:
    """Live updates of exports."""

    @followed("An export, at once and then at every change, until it is final. Requires scope `USAGE_READ`.", Scope.USAGE_READ)
    async def export_changed(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The export.")]
    ) -> AsyncGenerator[Export, None]:
        """Follow its row."""
        check(info.context, Scope.USAGE_READ)
        async for export in while_known(info.context, _states(info, id), Scope.USAGE_READ):
            yield Export.of(export)


async def _states(info: Info, global_id: str) -> AsyncIterator[ExportView]:
    """Look at an export's row, which one job writes, twice a second for as long as it is under way."""
    key = ids.uuid_of("Export", global_id)
    if key is None:
        raise NotFound("export", path=("id",))
    seen: ExportView | None = None
    while seen is None or seen.status not in FINAL:
        found = await exports.find(info.context, key)
        if found != seen:
            yield found
        seen = found
        if seen.status not in FINAL:
            await asyncio.sleep(LOOK_SECONDS)
