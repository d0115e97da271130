"""Receipts of calls, and the tries that they are made of."""

from uuid import UUID

from domain.errors import NotFound
from domain.money import grants, subscriptions
from domain.money.grants import GrantView
from domain.money.subscriptions import SubscriptionView
from domain.serving import receipts
from domain.serving.receipts import AttemptView, Receipt
from resolvers.asking import Asking


async def receipt(asking: Asking, call_id: str) -> Receipt | None:
    """The receipt of a call; None for one that is not there, or not for this caller."""
    try:
        return await receipts.find(asking.known, UUID(call_id), asking.facilities.book)
    except (NotFound, ValueError):
        return None


async def entitling(receipt: Receipt) -> SubscriptionView | None:
    """The first subscription that entitled the workspace when the call came."""
    found = await subscriptions.of_workspace(receipt.workspace_id, at=receipt.timings.received_at)
    return next((subscription for subscription in found if subscription.entitled), None)


async def grant(receipt: Receipt, account_id: UUID) -> GrantView:
    """The grant that paid a part of the call."""
    return await grants.find(receipt.workspace_id, account_id)


async def attempt(asking: Asking, attempt_id: UUID) -> tuple[Receipt, AttemptView]:
    """An upstream try and the receipt that it belongs to; raises NotFound."""
    return await receipts.of_attempt(asking.known, attempt_id, asking.facilities.book)
