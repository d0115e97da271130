"""Money given back and contested. None is yet: the types are here for what refetches them."""

import datetime

import strawberry
from strawberry import field

from schema.amounts import Money
from schema.callers import Actor
from schema.enums import DisputeStatus, RefundStatus
from schema.nodes import Node


@strawberry.type(description="Money of a top-up given back to the customer.")
class Refund(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    amount: Money = field(description="How much.")
    status: RefundStatus = field(description="Where it stands. A failed one is booked back.")
    reason: str | None = field(description="Why.")
    created_by: Actor = field(description="Who gave it back.")
    created_at: datetime.datetime = field(description="When it was begun.")


@strawberry.type(description="A payment contested at the customer's bank.")
class Dispute(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    amount: Money = field(description="How much.")
    status: DisputeStatus = field(description="Where it stands.")
    reason: str = field(description="The bank's reason, as Stripe names it.")
    created_at: datetime.datetime = field(description="When it was opened.")
    closed_at: datetime.datetime | None = field(description="When it was decided.")
