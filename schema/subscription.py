"""What is told as it happens, for as long as the credential works."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Annotated, Any, TypeVar, cast

import strawberry

from domain.errors import Unauthenticated
from domain.usage.records import RecordFilter
from models.enums import Scope
from schema.access import check
from schema.context import Context, Info
from schema.directives import RequiresScopes
from schema.records import UsageRecord, UsageRecordFilter

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
LiveFilter = Annotated[UsageRecordFilter | None, strawberry.argument(description="Only the records that match; `range` is ignored.")]

RENEWED_SECONDS = 5.0
"""How long a credential that has ended may still be told something."""


async def while_known(context: Context, source: AsyncIterator[T], *scopes: Scope) -> AsyncGenerator[T, None]:
    """Yield what `source` yields, until the credential ends or loses a scope: then raise as any field would."""
    following = asyncio.ensure_future(anext(source))
    clock = asyncio.get_running_loop().time
    renewed = clock()
    try:
        while True:
            done, _ = await asyncio.wait({following}, timeout=max(0.0, renewed + RENEWED_SECONDS - clock()))
            if context.renew is not None and clock() >= renewed + RENEWED_SECONDS:
                context.caller, renewed = await context.renew(), clock()
                if context.caller is None:
                    raise Unauthenticated
            check(context, *scopes)
            if not done:
                continue
            try:
                item = following.result()
            except StopAsyncIteration:
                return
            yield item
            following = asyncio.ensure_future(anext(source))
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        if isinstance(source, AsyncGenerator):
            await source.aclose()


def followed(description: str, *scopes: Scope) -> Callable[[F], F]:
    """Make the method a stream that needs scopes; it checks them itself."""
    return cast("Callable[[F], F]", strawberry.subscription(description=description, directives=[RequiresScopes(scopes=list(scopes))]))


@strawberry.type(description="Live updates, over graphql-transport-ws or graphql-sse. A stream ends when the credential does.")
class Subscription:
    """Streams; each has its own source, shared by all who follow it."""

    @followed("The request log as it is written: the live tail. Requires scope `USAGE_READ`.", Scope.USAGE_READ)
    async def usage_record_created(self, info: Info, filter: LiveFilter = strawberry.UNSET) -> AsyncGenerator[UsageRecord, None]:
        """Follow the request log."""
        check(info.context, Scope.USAGE_READ)
        wanted = filter.wanted(info) if filter else RecordFilter()
        source = info.context.facilities.feed.follow(info.context.known, wanted)
        async for record in while_known(info.context, source, Scope.USAGE_READ):
            yield UsageRecord.of(record)
