"""The audit log."""

from domain import audit
from domain.audit import AuditEventView, AuditFilter
from domain.pages import Page, PageOf
from resolvers.asking import Asking


async def page(asking: Asking, wanted: Page, filter: AuditFilter, *, everywhere: bool) -> PageOf[AuditEventView]:
    """A page of changes, newest first: the workspace's, or everybody's."""
    return await audit.page(asking.known, wanted, filter, everywhere=everywhere)


async def count(asking: Asking, filter: AuditFilter, *, everywhere: bool) -> int:
    """How many changes match."""
    return await audit.count(asking.known, filter, everywhere=everywhere)
