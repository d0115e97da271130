"""What usage can be attributed to."""

from typing import TYPE_CHECKING, Annotated

import strawberry
from strawberry import UNSET

from models.enums import Scope
from schema import ranges
from schema.access import requires
from schema.context import Info
from schema.fields import resolved

if TYPE_CHECKING:
    from schema.usage import UsageReport

Report = Annotated["UsageReport", strawberry.lazy("schema.usage")]


@strawberry.interface(description="Something that usage can be attributed to, and asked for.")
class UsageSource:
    """Each type answers for itself, under a description of its own."""

    @resolved("The usage attributed to this object. Requires scope `USAGE_READ`.", extensions=requires(Scope.USAGE_READ))
    async def usage(
        self, info: Info, range: ranges.Over = ranges.DEFAULT_RANGE, timezone: ranges.Zone = ranges.UTC, filter: ranges.Narrowed = UNSET
    ) -> Report | None:
        """Nothing, unless the type says more."""
        return None
