"""What a report counts, and what of it is selected: nothing else is added up."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import strawberry
from strawberry import field
from strawberry.extensions.field_extension import FieldExtension
from strawberry.types.nodes import FragmentSpread, InlineFragment, SelectedField, Selection

from domain.usage.metrics import COLUMNS_OF, TOKENS, Detail, Metric, Metrics, Runs
from domain.usage.metrics import Quantiles as Measured
from models import enums
from models.enums import Scope
from schema.access import requires
from schema.amounts import Money
from schema.context import Info
from schema.directives import Cost
from schema.fields import resolved
from schema.scalars import SafeInt

DETAILS = {
    "otherBuckets": Detail.OTHER_BUCKETS,
    "runs": Detail.RUNS,
    "credits": Detail.CREDITS,
    "uniqueEndUsers": Detail.END_USERS,
    "uniqueConversations": Detail.CONVERSATIONS,
    "latency": Detail.LATENCY,
    "timeToFirstToken": Detail.FIRST_TOKEN,
    "cacheMissCost": Detail.CACHE_MISSES,
}
"""Fields that cost a measurement of their own."""
COUNTED = {
    "requests": COLUMNS_OF[Metric.REQUESTS],
    "errors": COLUMNS_OF[Metric.ERRORS],
    "errorRate": frozenset({"requests", "errors"}),
    "tokens": TOKENS,
    "inputTokens": frozenset({"input_tokens"}),
    "outputTokens": frozenset({"output_tokens"}),
    "cacheReadTokens": frozenset({"cache_read_tokens"}),
    "cacheWriteTokens": frozenset({"cache_write_5m_tokens", "cache_write_1h_tokens"}),
    "cacheWrite1hTokens": frozenset({"cache_write_1h_tokens"}),
    "reasoningTokens": frozenset({"reasoning_tokens"}),
    "cacheHitRate": TOKENS - {"output_tokens"},
    "listValue": COLUMNS_OF[Metric.LIST_VALUE],
    "cost": COLUMNS_OF[Metric.COST],
    "platformCost": COLUMNS_OF[Metric.COST],
    "upstreamCost": COLUMNS_OF[Metric.UPSTREAM_COST],
    "margin": COLUMNS_OF[Metric.MARGIN],
    "walletCost": frozenset({"wallet_microusd"}),
    "characters": COLUMNS_OF[Metric.CHARACTERS],
    "lines": COLUMNS_OF[Metric.LINES],
    "charactersPerLine": frozenset({"characters", "lines"}),
    "units": COLUMNS_OF[Metric.UNITS],
}
"""The columns that fields are made of."""


@strawberry.type(description="Runs by outcome. The parts add up to `total`.")
class RunCounts:
    """As the contract has it."""

    total: SafeInt = field(description="All runs.")
    completed: SafeInt = field(description="Finished well.")
    failed: SafeInt = field(description="Ended with an error.")
    cancelled: SafeInt = field(description="Stopped by the caller.")
    running: SafeInt = field(description="Under way.")
    pending: SafeInt = field(description="Admitted, without any progress yet.")

    @classmethod
    def of(cls, runs: Runs) -> Self:
        """The counts as GraphQL shows them."""
        return cls(
            total=SafeInt(runs.total),
            completed=SafeInt(runs.completed),
            failed=SafeInt(runs.failed),
            cancelled=SafeInt(runs.cancelled),
            running=SafeInt(runs.running),
            pending=SafeInt(runs.pending),
        )


@strawberry.type(description="Quantiles of a duration in milliseconds, estimated from a histogram to within 5 %.")
class Quantiles:
    """As the contract has it."""

    p50: float = field(description="The median.")
    p90: float = field(description="Nine in ten are below.")
    p95: float = field(description="Nineteen in twenty are below.")
    p99: float = field(description="Ninety-nine in a hundred are below.")

    @classmethod
    def of(cls, measured: Measured | None) -> Self | None:
        """The quantiles as GraphQL shows them."""
        return cls(p50=measured.p50, p90=measured.p90, p95=measured.p95, p99=measured.p99) if measured else None


@strawberry.type(description="How much of a bucket was used.")
class BucketQuantity:
    """As the contract has it."""

    bucket: enums.Bucket = field(description="The bucket.")
    quantity: SafeInt = field(description="Tokens, characters, seconds, images or searches, as the bucket has it.")


def counted(description: str, read: Callable[[Metrics], object], *, extensions: Sequence[FieldExtension] = ()) -> Any:
    """Declare a field that is made of columns: read when it is selected, because what was not asked for is not there."""

    def resolve(root: "UsageMetrics") -> Any:
        return read(root.measured)

    return strawberry.field(resolver=resolve, description=description, extensions=list(extensions))


@strawberry.type(description="Everything that is counted. Select only what you need.")
class UsageMetrics:
    """Sums, and what was measured besides; each because it was selected."""

    measured: strawberry.Private[Metrics]
    requests: SafeInt = counted("Calls, failed ones included.", lambda used: used.requests)
    errors: SafeInt = counted("Calls that failed.", lambda used: used.errors)
    error_rate: float | None = counted("`errors / requests`, 0 to 1; null when there were no requests.", lambda used: used.error_rate)
    tokens: SafeInt = counted("All tokens: input, output, cache reads and cache writes.", lambda used: used.tokens)
    input_tokens: SafeInt = counted("Uncached input tokens.", lambda used: used.input_tokens)
    output_tokens: SafeInt = counted("Output tokens, reasoning included.", lambda used: used.output_tokens)
    cache_read_tokens: SafeInt = counted("Input tokens read from the provider's prompt cache.", lambda used: used.cache_read_tokens)
    cache_write_tokens: SafeInt = counted(
        "Input tokens written to the provider's prompt cache, for whatever time.",
        lambda used: used.cache_write_tokens,
    )
    cache_write1h_tokens: SafeInt = counted(
        "Input tokens written to the prompt cache for an hour; the rest of `cacheWriteTokens` is for five minutes.",
        lambda used: used.cache_write_1h_tokens,
    )
    reasoning_tokens: SafeInt = counted("Reasoning tokens, a part of `outputTokens`.", lambda used: used.reasoning_tokens)
    cache_hit_rate: float | None = counted(
        "Cache reads over all input, 0 to 1; null when there was no input.",
        lambda used: used.cache_hit_rate,
    )
    list_value: Money = counted("What it is worth at list price, whoever paid.", lambda used: Money.of(used.list_microusd))
    cost: Money = counted(
        "What the workspace was charged, after markup; 0 where a tier's quota paid.",
        lambda used: Money.of(used.charge_microusd),
    )
    platform_cost: Money = counted(
        "The part of `cost` for calls on the service's own provider keys: all of it today.",
        lambda used: Money.of(used.platform_cost_microusd),
    )
    upstream_cost: Money | None = counted(
        "What the upstreams charged, failed attempts included. Requires scope `OPERATOR`.",
        lambda used: Money.of(used.upstream_cost_microusd),
        extensions=requires(Scope.OPERATOR),
    )
    margin: Money | None = counted(
        "`cost` less `upstreamCost`. Requires scope `OPERATOR`.",
        lambda used: Money.of(used.margin_microusd),
        extensions=requires(Scope.OPERATOR),
    )
    wallet_cost: Money = counted(
        "What end users' wallets paid; an app's own margin is this less `cost`.",
        lambda used: Money.of(used.wallet_microusd),
    )
    characters: SafeInt = counted("Characters processed.", lambda used: used.characters)
    lines: SafeInt = counted("Lines processed.", lambda used: used.lines)
    characters_per_line: float | None = counted(
        "Mean characters for each line; null when there were no lines.",
        lambda used: used.characters_per_line,
    )
    units: SafeInt = counted("Units used, as the metered API defines its unit.", lambda used: used.units)

    @resolved(
        "The list value in whole credits of document 1, in such a way that buckets add up; one is a US cent unless the "
        "operator says otherwise."
    )
    def credits(self) -> SafeInt:
        """Measured because it is selected."""
        assert self.measured.credits is not None
        return SafeInt(self.measured.credits)

    @resolved("What it cost to send anew the input that the prompt cache could have served.")
    def cache_miss_cost(self) -> Money:
        """Measured because it is selected."""
        assert self.measured.cache_miss_microusd is not None
        return Money.of(self.measured.cache_miss_microusd)

    @resolved("Everything counted that is not a token: characters of speech, seconds of audio, images, web searches.")
    def other_buckets(self) -> list[BucketQuantity]:
        """Measured because it is selected."""
        assert self.measured.other_buckets is not None
        return [BucketQuantity(bucket=bucket, quantity=SafeInt(quantity)) for bucket, quantity in self.measured.other_buckets.items()]

    @resolved("Runs by outcome.")
    def runs(self) -> RunCounts:
        """Measured because it is selected."""
        assert self.measured.runs is not None
        return RunCounts.of(self.measured.runs)

    @resolved("Different end users named in calls (`user`, `metadata.user_id`).", directives=[Cost(weight="5")])
    def unique_end_users(self) -> SafeInt:
        """Measured because it is selected."""
        assert self.measured.end_users is not None
        return SafeInt(self.measured.end_users)

    @resolved("Different conversations named in calls.", directives=[Cost(weight="5")])
    def unique_conversations(self) -> SafeInt:
        """Measured because it is selected."""
        assert self.measured.conversations is not None
        return SafeInt(self.measured.conversations)

    @resolved("Time from request to last byte, in milliseconds; null when there were no requests.", directives=[Cost(weight="5")])
    def latency(self) -> Quantiles | None:
        """Measured because it is selected."""
        return Quantiles.of(self.measured.latency)

    @resolved("Time from request to first token, in milliseconds; null when nothing was streamed.", directives=[Cost(weight="5")])
    def time_to_first_token(self) -> Quantiles | None:
        """Measured because it is selected."""
        return Quantiles.of(self.measured.first_token)

    @classmethod
    def of(cls, metrics: Metrics) -> Self:
        """What was measured as GraphQL shows it."""
        return cls(measured=metrics)


def fields_below(selections: Iterable[Selection]) -> Iterable[SelectedField]:
    """Walk through all fields below, those in fragments too."""
    for selection in selections:
        if isinstance(selection, SelectedField):
            yield selection
            yield from fields_below(selection.selections)
        elif isinstance(selection, InlineFragment | FragmentSpread):
            yield from fields_below(selection.selections)


def details(info: Info) -> frozenset[Detail]:
    """What the fields selected below the current one need besides the sums."""
    return frozenset(DETAILS[each.name] for each in fields_below(info.selected_fields) if each.name in DETAILS)


def columns(info: Info) -> frozenset[str]:
    """What the fields selected below the current one are made of."""
    return frozenset[str]().union(*(COUNTED.get(each.name, ()) for each in fields_below(info.selected_fields)))
