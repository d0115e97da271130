"""Where calls are sent, and how that goes: for operators."""

import datetime
from typing import Annotated, Self

import strawberry
from strawberry import UNSET, field

from domain.pages import PageOf
from domain.serving.receipts import AttemptView
from domain.serving.receipts import Receipt as ReceiptView
from domain.serving.upstreams import ProviderLimit, UpstreamView
from models import enums
from models.enums import LimitPer, Resource
from resolvers import upstreams as resolvers
from schema import ids, pages
from schema.catalogue import Model, PriceConnection, model_named
from schema.context import Info
from schema.directives import PAGED, Cost
from schema.fields import resolved
from schema.limits import Quota
from schema.metrics import Quantiles
from schema.nodes import Failure, Node
from schema.receipts import Attempt
from schema.scalars import SafeInt, Window


@strawberry.type(description="An attempt and its place.")
class AttemptEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: Attempt = field(description="The attempt.")


@strawberry.type(description="A page of attempts.")
class AttemptConnection:
    """A page of attempts."""

    upstream: strawberry.Private[str]
    outcomes: strawberry.Private[tuple[enums.UsageOutcome, ...] | None]
    page: strawberry.Private[PageOf[tuple[ReceiptView, AttemptView]]]

    @resolved("The page.")
    def edges(self) -> list[AttemptEdge]:
        """Show the page."""
        return [AttemptEdge(cursor=pages.cursor("Attempt", attempt.id), node=Attempt.of(receipt, attempt)) for receipt, attempt in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[Attempt]:
        """Show the page."""
        return [Attempt.of(receipt, attempt) for receipt, attempt in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("Attempt", self.page, [attempt.id for _, attempt in self.page.items])

    @resolved("How many there are in all; counted only when selected.", directives=[Cost(weight="5")])
    async def total_count(self, info: Info) -> SafeInt:
        """Count the tries."""
        return SafeInt(await resolvers.attempt_count(info.context, self.upstream, self.outcomes))


Outcomes = Annotated[list[enums.UsageOutcome] | None, strawberry.argument(description="Only those that ended so.")]


@strawberry.type(
    description=(
        "Somewhere that calls are sent: one provider account at one address. Addresses and keys come from configuration only, and are never told."
    )
)
class Upstream(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    name: str = field(description="The name given in the configuration.")
    provider: str = field(description="The provider.")
    dialect: enums.Dialect = field(description="The dialect it speaks.")
    state: enums.UpstreamState = field(description="Whether calls are sent to it.")
    cools_down_until: datetime.datetime | None = field(description="When calls are sent to it again; null unless it cools down.")
    weight: int = field(description="Its share among upstreams of the same model.")
    calls_under_way: int = field(description="Calls under way.")
    error_rate: float | None = field(description="Tries of the last five minutes that failed, 0 to 1; null when there were none.")
    time_to_first_byte: Quantiles | None = field(
        description="Time to its first byte over the last five minutes, in milliseconds; null when there were no tries."
    )
    last_failure: Failure | None = field(description="Why a try last failed.")
    last_failed_at: datetime.datetime | None = field(description="When a try last failed.")
    limits: list[Quota] = field(description="What the provider's rate-limit headers last said.")
    model_names: strawberry.Private[tuple[str, ...]]

    @resolved("The models it serves.")
    def models(self, info: Info) -> list[Model]:
        """Find them."""
        return [model for name in self.model_names if (model := model_named(info, name)) is not None]

    @resolved("What it charges, newest version first.", directives=[PAGED])
    def prices(
        self, info: Info, first: pages.First = UNSET, after: pages.After = UNSET, last: pages.Last = UNSET, before: pages.Before = UNSET
    ) -> PriceConnection:
        """Read a page of them in the book."""
        found = resolvers.prices(info.context, self.name)
        return PriceConnection.within(found, pages.page_of("Price", first, after, last, before))

    @resolved("Tries of calls, newest first.", directives=[PAGED])
    async def attempts(
        self,
        info: Info,
        first: pages.First = UNSET,
        after: pages.After = UNSET,
        last: pages.Last = UNSET,
        before: pages.Before = UNSET,
        outcomes: Outcomes = UNSET,
    ) -> AttemptConnection:
        """Read a page of them."""
        wanted = tuple(outcomes) if outcomes else None
        page = await resolvers.attempts(info.context, self.name, pages.page_of("Attempt", first, after, last, before), wanted)
        return AttemptConnection(upstream=self.name, outcomes=wanted, page=page)

    @classmethod
    def of(cls, upstream: UpstreamView) -> Self:
        """The upstream as GraphQL shows it."""
        failure = upstream.last_failure
        return cls(
            id=ids.encode("Upstream", upstream.name),
            name=upstream.name,
            provider=upstream.name,
            dialect=enums.Dialect(upstream.dialect),
            state=upstream.state,
            cools_down_until=upstream.cools_down_until,
            weight=upstream.weight,
            calls_under_way=upstream.calls_under_way,
            error_rate=upstream.tally.error_rate,
            time_to_first_byte=_quantiles(upstream),
            last_failure=Failure(code=failure.code, message=failure.message, retryable=failure.retryable) if failure else None,
            last_failed_at=upstream.last_failed_at,
            limits=[_quota(limit) for limit in upstream.limits],
            model_names=upstream.models,
        )


def _quantiles(upstream: UpstreamView) -> Quantiles | None:
    found = [upstream.tally.quantile(part) for part in (0.5, 0.9, 0.95, 0.99)]
    p50, p90, p95, p99 = (float(value) if value is not None else None for value in found)
    if p50 is None or p90 is None or p95 is None or p99 is None:
        return None
    return Quantiles(p50=p50, p90=p90, p95=p95, p99=p99)


def _quota(limit: ProviderLimit) -> Quota:
    used = None if limit.most is None else max(limit.most - limit.left, 0)
    return Quota(
        resource=Resource.TOKENS if limit.resource == "tokens" else Resource.API_CALLS,
        window=Window("1m"),
        limit=None if limit.most is None else SafeInt(limit.most),
        per=LimitPer.TOGETHER,
        used=None if used is None else SafeInt(used),
        remaining=SafeInt(limit.left),
        percent=None if used is None or not limit.most else round(100 * used / limit.most, 1),
        started_at=None,
        resets_at=limit.resets_at,
        of_model=None,
    )
