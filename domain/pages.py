"""Pages of lists that grow: keyset, never offsets, so that a page stays right while rows are added and removed."""

from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from domain.errors import InvalidInput

T = TypeVar("T")

LARGEST_PAGE = 100


@dataclass(frozen=True, slots=True)
class Page:
    """At most `size` rows after or before the row with an id; `backwards` takes them from the end."""

    size: int = 20
    after: UUID | None = None
    before: UUID | None = None
    backwards: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.size <= LARGEST_PAGE:
            raise InvalidInput(f"A page has 1 to {LARGEST_PAGE} rows.", path=("first",))


@dataclass(frozen=True, slots=True)
class PageOf(Generic[T]):
    """The rows of a page in the list's order, and whether there are more on either side."""

    items: list[T]
    has_next: bool
    has_previous: bool


@dataclass(frozen=True, slots=True)
class Keyset:
    """The clauses of one page of a list that is ordered by a time-ordered id."""

    where: str
    order: str
    arguments: tuple[UUID | int, ...]


def newest_first(page: Page, *, column: str = "id", offset: int) -> Keyset:
    """Return WHERE, ORDER BY and LIMIT clauses for a list that shows the newest first; parameters are numbered from `offset` + 1."""
    return _keyset(page, column, offset, newest=True)


def oldest_first(page: Page, *, column: str = "id", offset: int) -> Keyset:
    """Return WHERE, ORDER BY and LIMIT clauses for a list that shows the oldest first; parameters are numbered from `offset` + 1."""
    return _keyset(page, column, offset, newest=False)


def _keyset(page: Page, column: str, offset: int, *, newest: bool) -> Keyset:
    clauses, arguments = [], []
    for bound, past in ((page.after, "<" if newest else ">"), (page.before, ">" if newest else "<")):
        if bound is not None:
            arguments.append(bound)
            clauses.append(f"{column} {past} ${offset + len(arguments)}")
    descending = newest != page.backwards
    order = f"ORDER BY {column} {'DESC' if descending else 'ASC'} LIMIT ${offset + len(arguments) + 1}"
    return Keyset(where="".join(f" AND {clause}" for clause in clauses), order=order, arguments=(*arguments, page.size + 1))


def following(after: UUID | None, most: int, *, column: str = "id", offset: int) -> Keyset:
    """Return the clauses of the next `most` rows, oldest first, of a list that is read to its end by the service itself."""
    where, arguments = ("", ()) if after is None else (f" AND {column} > ${offset + 1}", (after,))
    return Keyset(where=where, order=f"ORDER BY {column} LIMIT ${offset + len(arguments) + 1}", arguments=(*arguments, most))


def cut(rows: list[T], page: Page) -> PageOf[T]:
    """Make a page of the `size + 1` rows that a keyset statement returned."""
    more = len(rows) > page.size
    items = rows[: page.size]
    if page.backwards:
        return PageOf(items=items[::-1], has_next=page.before is not None, has_previous=more)
    return PageOf(items=items, has_next=more, has_previous=page.after is not None)
