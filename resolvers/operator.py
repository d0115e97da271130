"""The whole service, for an operator."""

from uuid import UUID

from domain import duties
from domain.access import workspaces
from domain.access.workspaces import WorkspaceView
from domain.duties import JobView
from domain.money import books, ledger
from domain.money.books import Report
from domain.money.ledger import AccountView
from domain.pages import Page, PageOf
from resolvers.asking import Asking


async def page_of_workspaces(asking: Asking, wanted: Page, search: str | None) -> PageOf[WorkspaceView]:
    """A page of all workspaces, newest first."""
    return await workspaces.page(asking.known, wanted, search)


async def workspace_count(asking: Asking, search: str | None) -> int:
    """How many workspaces match."""
    return await workspaces.count(asking.known, search)


async def report(asking: Asking) -> Report:
    """Whether the books are sound, looked at now."""
    return await books.report(asking.known)


async def accounts(asking: Asking) -> list[AccountView]:
    """The service's own accounts."""
    return await ledger.service_accounts(asking.known)


async def failed_jobs(asking: Asking, most: int) -> list[JobView]:
    """Jobs that were given up."""
    return await duties.given_up(asking.known, most)


async def retry(asking: Asking, job_id: UUID) -> JobView:
    """Queue a job again."""
    return await duties.retry(asking.known, job_id)
