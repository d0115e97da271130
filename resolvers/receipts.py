"""Receipts of calls, and the tries that they are made of."""

from uuid import UUID

from domain.errors import NotFound
from domain.serving import receipts
from domain.serving.receipts import AttemptView, Receipt
from resolvers.asking import Asking


async def receipt(asking: Asking, call_id: str) -> Receipt | None:
    """The receipt of a call; None for one that is not there, or not for this caller."""
    try:
        return await receipts.find(asking.known, UUID(call_id), asking.facilities.book)
    except (NotFound, ValueError):
        return None


async def attempt(asking: Asking, attempt_id: UUID) -> tuple[Receipt, AttemptView]:
    """An upstream try and the receipt that it belongs to; raises NotFound."""
    return await receipts.of_attempt(asking.known, attempt_id, asking.facilities.book)
