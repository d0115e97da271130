"""The activity chart of a workspace, key, app, person or model."""

from typing import Self

import strawberry
from strawberry import field

from domain.usage import activity
from domain.usage.activity import ActivityView
from domain.usage.windows import Granularity
from schema.scalars import SafeInt
from schema.usage import UsageBucket


@strawberry.type(description="The highest bar of an activity chart.")
class ActivityPeak:
    """As the contract has it."""

    value: SafeInt = field(description="Its height.")
    bucket: UsageBucket = field(description="The bar.")


@strawberry.type(description="The activity chart: one bar for each local day, week or month.")
class Activity:
    """As the contract has it."""

    view: ActivityView = field(description="Which chart.")
    bucket_unit: Granularity = field(description="The unit of a bar.")
    range_label: str = field(description="A caption such as `Last 7 days`.")
    total: SafeInt = field(description="The sum over all bars.")
    average: float = field(description="The mean of a bar, to one decimal.")
    buckets: list[UsageBucket] = field(description="The bars, oldest first.")
    peak: ActivityPeak | None = field(description="The highest bar; null when all are zero.")

    @classmethod
    def of(cls, chart: activity.Activity) -> Self:
        """The chart as GraphQL shows it."""
        return cls(
            view=chart.view,
            bucket_unit=chart.unit,
            range_label=chart.window.label,
            total=SafeInt(chart.total),
            average=chart.average,
            buckets=[UsageBucket.of(bar) for bar in chart.bars],
            peak=ActivityPeak(value=SafeInt(chart.height(chart.peak)), bucket=UsageBucket.of(chart.peak)) if chart.peak else None,
        )
