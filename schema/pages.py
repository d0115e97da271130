"""Pages of lists that grow: Relay's arguments in, keyset pages inside, opaque cursors out."""

from collections.abc import Sequence
from typing import Annotated, TypeVar
from uuid import UUID

import strawberry
from strawberry import field

from domain.pages import LARGEST_PAGE, Page, PageOf
from schema import ids
from schema.errors import unacceptable
from schema.inputs import given

First = Annotated[int | None, strawberry.argument(description="Return at most this many from the start, 1 to 100.")]
After = Annotated[str | None, strawberry.argument(description="Only those after this cursor.")]
Last = Annotated[int | None, strawberry.argument(description="Return at most this many from the end, 1 to 100.")]
Before = Annotated[str | None, strawberry.argument(description="Only those before this cursor.")]

T = TypeVar("T")

DEFAULT_SIZE = 20


@strawberry.type(description="Where a page begins and ends.")
class PageInfo:
    """As the contract has it."""

    has_next_page: bool = field(description="Whether more follows.")
    has_previous_page: bool = field(description="Whether more came before.")
    start_cursor: str | None = field(description="The first edge's cursor; null on an empty page.")
    end_cursor: str | None = field(description="The last edge's cursor; null on an empty page.")


def cursor(kind: str, key: UUID) -> str:
    """The place of the row `key` in lists of `kind`."""
    return ids.encode(f"{kind}Cursor", key)


def page_of(kind: str, first: int | None, after: str | None, last: int | None, before: str | None) -> Page:
    """The page that Relay's four arguments ask for.

    Raises BAD_USER_INPUT for `first` beside `last`, for a size outside of 1 to 100, and for a cursor of another list.
    """
    first, after, last, before = given(first), given(after), given(last), given(before)
    if first is not None and last is not None:
        raise unacceptable("Ask for `first` or for `last`, not for both.")
    size = first if first is not None else last if last is not None else DEFAULT_SIZE
    if not 1 <= size <= LARGEST_PAGE:
        raise unacceptable(f"`{'first' if last is None else 'last'}` is 1 to {LARGEST_PAGE}.")
    return Page(size, _place(kind, "after", after), _place(kind, "before", before), last is not None)


def _place(kind: str, argument: str, text: str | None) -> UUID | None:
    if text is None:
        return None
    key = ids.uuid_of(f"{kind}Cursor", text)
    if key is None:
        raise unacceptable(f"`{argument}` is no cursor of this list.")
    return key


def info(kind: str, page: PageOf[T], keys: Sequence[UUID]) -> PageInfo:
    """Where a page begins and ends; `keys` are those of its rows, in order."""
    return PageInfo(
        has_next_page=page.has_next,
        has_previous_page=page.has_previous,
        start_cursor=cursor(kind, keys[0]) if keys else None,
        end_cursor=cursor(kind, keys[-1]) if keys else None,
    )
