"""Whole lists, where a document has no pages: read from the domain's pages one after another."""

from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from domain.pages import LARGEST_PAGE, Page, PageOf

T = TypeVar("T")


async def first(fetch: Callable[[Page], Awaitable[PageOf[T]]], id_of: Callable[[T], UUID], *, most: int | None = None) -> list[T]:
    """Return the first `most` items of a list, all of them for None, in its order."""
    found: list[T] = []
    after = None
    while most is None or len(found) < most:
        size = LARGEST_PAGE if most is None else min(LARGEST_PAGE, most - len(found))
        page = await fetch(Page(size, after=after))
        found += page.items
        if not page.has_next:
            break
        after = id_of(found[-1])
    return found
