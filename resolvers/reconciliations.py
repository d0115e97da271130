"""Comparisons with providers' bills, for operators."""

from uuid import UUID

from domain.money import ledger, reconciliations
from domain.money.ledger import TransferView
from domain.money.reconciliations import LineView, NewReconciliation, ReconciliationView
from domain.pages import Page, PageOf
from resolvers.asking import Asking


async def page(asking: Asking, wanted: Page) -> PageOf[ReconciliationView]:
    """A page of them, newest first."""
    return await reconciliations.page(asking.known, wanted)


async def count(asking: Asking) -> int:
    """How many there are."""
    return await reconciliations.count(asking.known)


async def lines(asking: Asking, reconciliation_id: UUID, most: int) -> list[LineView]:
    """The bill, line by line."""
    return await reconciliations.lines(asking.known, reconciliation_id, most)


async def transfers(asking: Asking, booked: tuple[UUID, UUID] | None) -> list[TransferView]:
    """What approval booked."""
    if booked is None:
        return []
    workspace_id, transfer_id = booked
    return list((await ledger.find_transfers(asking.within(workspace_id), [transfer_id])).values())


async def create(asking: Asking, new: NewReconciliation) -> ReconciliationView:
    """Queue a comparison."""
    lent = asking.facilities
    return await reconciliations.create(asking.known, new, [(each.name, each.dialect) for each in lent.routes.upstreams], lent.bills)


async def approve(asking: Asking, reconciliation_id: UUID, reason: str) -> ReconciliationView:
    """Accept a difference."""
    return await reconciliations.approve(asking.known, reconciliation_id, reason)
