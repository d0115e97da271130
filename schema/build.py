"""The schema that is served."""

from strawberry.schema.config import StrawberryConfig

from schema.engine import Contract, extensions
from schema.exports import Export
from schema.mutation import Mutation
from schema.payments import Dispute, Refund
from schema.query import Query
from schema.scalars import SCALARS
from schema.subscription import Subscription
from schema.throttle import Throttle
from schema.user_errors import EVERY_TYPE


def build(throttle: Throttle) -> Contract:
    """Make the schema, whose operations draw on `throttle`; a process makes it once."""
    return Contract(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        types=[*EVERY_TYPE, Dispute, Export, Refund],
        config=StrawberryConfig(scalar_map=SCALARS),
        extensions=extensions(throttle),
    )
