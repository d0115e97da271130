"""The whole service, for the people who run it."""

import strawberry
from strawberry import UNSET

from models.enums import Scope
from resolvers import upstreams
from schema import ranges
from schema.access import requires
from schema.context import Info
from schema.fields import resolved
from schema.sources import UsageSource
from schema.upstreams import Upstream
from schema.usage import UsageReport, report


@strawberry.type(description="The whole service, for the people who run it.")
class Operator(UsageSource):
    """As the contract has it."""

    @resolved("The usage of all workspaces, with margins. Requires scope `OPERATOR`.", extensions=requires(Scope.OPERATOR))
    async def usage(
        self, info: Info, range: ranges.Over = ranges.DEFAULT_RANGE, timezone: ranges.Zone = ranges.UTC, filter: ranges.Narrowed = UNSET
    ) -> UsageReport | None:
        """Resolve the window; what is selected is measured over all workspaces."""
        return report(info, range, timezone, filter, everywhere=True)

    @resolved("Where calls are sent, and how that goes.")
    async def upstreams(self, info: Info) -> list[Upstream]:
        """Read what every process knows of them."""
        return [Upstream.of(upstream) for upstream in await upstreams.seen(info.context)]
