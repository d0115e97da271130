"""Following something for as long as the credential works."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, TypeVar, cast

import strawberry

from domain.errors import Unauthenticated
from models.enums import Scope
from schema.access import check
from schema.context import Context
from schema.directives import RequiresScopes

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
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
