"""Tokens that browsers hold. None is made yet: the type is here for what refers to it."""

import datetime

import strawberry
from strawberry import field

from schema.amounts import Money
from schema.callers import Actor
from schema.nodes import Node
from schema.scalars import SafeInt


@strawberry.type(description="A short-lived token that a browser can hold. It is never wider than the caller who made it.")
class ClientToken(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    created_by: Actor = field(description="Who made it.")
    allowed_origins: list[str] | None = field(description="Browser origins it may be used from; null means all.")
    spend_cap: Money | None = field(description="The most it may spend; null means no cap of its own.")
    spent: Money = field(description="What it has spent, calls under way included.")
    request_cap: int | None = field(description="The most calls it may make; null means no cap of its own.")
    requests: SafeInt = field(description="Calls it has made.")
    created_at: datetime.datetime = field(description="When it was made.")
    expires_at: datetime.datetime = field(description="When it stops working.")
    revoked_at: datetime.datetime | None = field(description="When it was revoked.")
