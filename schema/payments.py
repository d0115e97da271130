"""Money given back and contested."""

import datetime
from typing import TYPE_CHECKING, Annotated, Self

import strawberry
from strawberry import field

from domain.money.topups import DisputeView, RefundView
from models import enums
from schema import ids
from schema.amounts import Money
from schema.callers import Actor
from schema.context import Info
from schema.fields import resolved
from schema.nodes import Node

if TYPE_CHECKING:
    from schema.topups import TopUp


@strawberry.type(description="Money of a top-up given back to the customer.")
class Refund(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    amount: Money = field(description="How much.")
    status: enums.RefundStatus = field(description="Where it stands. A failed one is booked back.")
    reason: str | None = field(description="Why.")
    created_by: Actor = field(description="Who gave it back.")
    created_at: datetime.datetime = field(description="When it was begun.")
    view: strawberry.Private[RefundView]

    @resolved("The top-up.")
    async def top_up(self, info: Info) -> Annotated["TopUp", strawberry.lazy("schema.topups")]:
        """Load it."""
        return await _top_up(info, self.view)

    @classmethod
    def of(cls, refund: RefundView) -> Self:
        """The refund as GraphQL shows it."""
        return cls(
            id=ids.encode("Refund", refund.id),
            amount=Money.of(refund.amount),
            status=refund.status,
            reason=refund.reason,
            created_by=Actor.of(refund.creator),
            created_at=refund.created_at,
            view=refund,
        )


@strawberry.type(description="A payment contested at the customer's bank.")
class Dispute(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    amount: Money = field(description="How much.")
    status: enums.DisputeStatus = field(description="Where it stands.")
    reason: str = field(description="The bank's reason, as Stripe names it.")
    created_at: datetime.datetime = field(description="When it was opened.")
    closed_at: datetime.datetime | None = field(description="When it was decided.")
    view: strawberry.Private[DisputeView]

    @resolved("The top-up.")
    async def top_up(self, info: Info) -> Annotated["TopUp", strawberry.lazy("schema.topups")]:
        """Load it."""
        return await _top_up(info, self.view)

    @classmethod
    def of(cls, dispute: DisputeView) -> Self:
        """The dispute as GraphQL shows it."""
        return cls(
            id=ids.encode("Dispute", dispute.id),
            amount=Money.of(dispute.amount),
            status=dispute.status,
            reason=dispute.reason,
            created_at=dispute.created_at,
            closed_at=dispute.closed_at,
            view=dispute,
        )


async def _top_up(info: Info, about: RefundView | DisputeView) -> "TopUp":
    from schema.topups import TopUp

    found = await info.context.top_ups.load((about.workspace_id, about.top_up_id))
    assert found is not None, "top-ups are never deleted"
    return TopUp.of(found)
