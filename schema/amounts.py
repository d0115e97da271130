"""Money as GraphQL shows it."""

import decimal
from typing import Self

import strawberry
from strawberry import field

from domain.money import amounts
from schema.scalars import MicroUsd


@strawberry.type(description="An amount of US dollars, exact to a millionth.")
class Money:
    """As the contract has it."""

    micro_usd: MicroUsd = field(description="The amount in millionths of a dollar.")
    usd: decimal.Decimal = field(description='The same amount in dollars: `"12.345678"`.')

    @classmethod
    def of(cls, microusd: int) -> Self:
        """The amount of that many microdollars."""
        return cls(micro_usd=MicroUsd(microusd), usd=decimal.Decimal(amounts.usd(microusd)))
