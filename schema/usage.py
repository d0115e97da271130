"""Reports of metered usage: what is computed is what is selected."""

import dataclasses
import datetime
from typing import TYPE_CHECKING, Annotated, Self, TypeVar
from uuid import UUID

import strawberry
from strawberry import UNSET, field

from domain.usage.activity import ActivityView
from domain.usage.measure import Group, Point, Series
from domain.usage.metrics import Dimension, Metric, Question, Values
from domain.usage.metrics import UsageFilter as Narrowing
from domain.usage.windows import Granularity, Window
from models import enums
from resolvers import usage as resolvers
from resolvers.asking import KeyTotals
from schema.apps import App
from schema.catalogue import Model, model_named
from schema.context import Info
from schema.directives import Cost, ListSize
from schema.end_users import EndUser, end_user_named
from schema.enums import SortDirection
from schema.fields import resolved
from schema.keys import ApiKey
from schema.metrics import DETAILS, UsageMetrics, columns, details, fields_below
from schema.presets import Preset, preset_named
from schema.ranges import UsageFilter, UsageRange
from schema.scalars import TimeZone
from schema.users import User, visible

if TYPE_CHECKING:
    from schema.activity import Activity
    from schema.cache_misses import CacheMiss
    from schema.workspaces import Workspace

Tenant = Annotated["Workspace", strawberry.lazy("schema.workspaces")]
Chart = Annotated["Activity", strawberry.lazy("schema.activity")]
Miss = Annotated["CacheMiss", strawberry.lazy("schema.cache_misses")]

T = TypeVar("T", str, UUID)


@strawberry.input(description="The order of usage groups.")
class UsageGroupOrder:
    """As the contract has it."""

    metric: Metric = field(description="By what.")
    direction: SortDirection = field(description="Which way.")


LARGEST_FIRST = UsageGroupOrder(metric=Metric.COST, direction=SortDirection.DESC)


@strawberry.type(description="Usage in one stretch of time.")
class UsageBucket:
    """As the contract has it."""

    start: datetime.datetime = field(description="Inclusive start.")
    end: datetime.datetime = field(description="Exclusive end.")
    label: str = field(
        description="The local start as a person would write it in this zone: `2026-11-21`, `2026-W47`, `2026-11`, `2026-11-21T14:00`."
    )
    partial: bool = field(description="Whether the bucket is not over yet.")
    metrics: UsageMetrics = field(description="The bucket's totals.")

    @classmethod
    def of(cls, point: Point) -> Self:
        """The bucket as GraphQL shows it."""
        bucket = point.bucket
        return cls(start=bucket.start, end=bucket.end, label=bucket.label, partial=bucket.partial, metrics=UsageMetrics.of(point.metrics))


@strawberry.type(
    description=(
        "The values that a group or series stands for. Only the dimensions asked for are set; a set dimension without a value is null too."
    )
)
class UsageDimensionValues:
    """As the contract has it."""

    model_name: str | None = field(description="The model's name, set even when the model is no longer offered.")
    provider: str | None = field(description="The upstream provider.")
    conversation_id: str | None = field(description="The conversation ID that calls name.")
    tag_value: str | None = field(description="The value of the tag asked for.")
    api_name: str | None = field(description="The metered API, for example `llm_query`.")
    endpoint: str | None = field(description="The path called, for example `/v1/messages`.")
    language: str | None = field(description="The BCP 47 language tag of the content.")
    outcome: enums.UsageOutcome | None = field(description="How the call ended.")
    http_status: int | None = field(description="The HTTP status answered.")
    app_id: strawberry.Private[UUID | None]
    workspace_id: strawberry.Private[UUID | None]
    key_id: strawberry.Private[UUID | None]
    user_id: strawberry.Private[UUID | None]
    preset_name: strawberry.Private[str | None]
    end_user_name: strawberry.Private[str | None]
    by_app: strawberry.Private[bool]

    @resolved("The app.")
    async def app(self, info: Info) -> App | None:
        """Load the app; null for a deleted one, and for whoever may not see apps."""
        app = await info.context.apps.load(self.app_id) if self.app_id else None
        return App.of(app) if app else None

    @resolved("The end user, as calls name it.")
    async def end_user(self, info: Info) -> EndUser | None:
        """Load the end user; where apps are not kept apart, of several with one name the one seen last."""
        return await end_user_named(info, self.end_user_name, self.app_id, app_known=self.by_app)

    @resolved("The workspace, in the operator's reports.")
    async def workspace(self, info: Info) -> Tenant | None:
        """Load the workspace."""
        from schema.workspaces import Workspace

        found = await info.context.workspaces.load(self.workspace_id) if self.workspace_id else None
        return Workspace.of(found) if found else None

    @resolved("The tool preset.")
    def preset(self, info: Info) -> Preset | None:
        """Find the preset of which calls name a version; null for one that was taken away."""
        return preset_named(info, self.preset_name)

    @resolved("The model.")
    def model(self, info: Info) -> Model | None:
        """Read it in the book."""
        return model_named(info, self.model_name)

    @resolved("The API key.")
    async def api_key(self, info: Info) -> ApiKey | None:
        """Load the key."""
        key = await info.context.keys.load(self.key_id) if self.key_id else None
        return ApiKey.of(key) if key else None

    @resolved("The person.")
    async def user(self, info: Info) -> User | None:
        """Load the person."""
        person = await info.context.users.load(self.user_id) if self.user_id else None
        return User.of(person, visible(info.context, person.id)) if person else None

    @classmethod
    def of(cls, values: Values) -> Self:
        """The values as GraphQL shows them."""
        outcome = values.get(Dimension.OUTCOME)
        status = values.get(Dimension.HTTP_STATUS)
        return cls(
            model_name=_text(values, Dimension.MODEL),
            provider=_text(values, Dimension.PROVIDER),
            conversation_id=_text(values, Dimension.CONVERSATION),
            tag_value=_text(values, Dimension.TAG),
            api_name=_text(values, Dimension.API_NAME),
            endpoint=_text(values, Dimension.ENDPOINT),
            language=_text(values, Dimension.LANGUAGE),
            outcome=enums.UsageOutcome(outcome) if isinstance(outcome, str) else None,
            http_status=status if isinstance(status, int) else None,
            app_id=_row(values, Dimension.APP),
            workspace_id=_row(values, Dimension.WORKSPACE),
            key_id=_row(values, Dimension.API_KEY),
            user_id=_row(values, Dimension.USER),
            preset_name=_text(values, Dimension.PRESET),
            end_user_name=_text(values, Dimension.END_USER),
            by_app=Dimension.APP in values.by,
        )


def _text(values: Values, dimension: Dimension) -> str | None:
    value = values.get(dimension)
    return value if isinstance(value, str) else None


def _row(values: Values, dimension: Dimension) -> UUID | None:
    value = values.get(dimension)
    return value if isinstance(value, UUID) else None


@strawberry.type(description="Usage that shares the same dimension values.")
class UsageGroup:
    """As the contract has it."""

    dimensions: UsageDimensionValues = field(description="What the group stands for.")
    other: bool = field(description="Whether this is the folded rest.")
    metrics: UsageMetrics = field(description="The group's totals.")
    share: float | None = field(description="The group's part of the report's cost, 0 to 1; null when nothing was charged.")

    @classmethod
    def of(cls, group: Group) -> Self:
        """The group as GraphQL shows it."""
        return cls(
            dimensions=UsageDimensionValues.of(group.values), other=group.other, metrics=UsageMetrics.of(group.metrics), share=group.share
        )


@strawberry.type(description="A time series for one dimension value.")
class UsageSeries:
    """As the contract has it."""

    dimensions: UsageDimensionValues = field(description="What the series stands for.")
    other: bool = field(description="Whether this is the folded rest.")
    totals: UsageMetrics = field(description="The totals over all points.")
    points: list[UsageBucket] = field(description="The points, oldest first, without gaps.")

    @classmethod
    def of(cls, series: Series) -> Self:
        """The series as GraphQL shows it."""
        return cls(
            dimensions=UsageDimensionValues.of(series.values),
            other=series.other,
            totals=UsageMetrics.of(series.totals),
            points=[UsageBucket.of(point) for point in series.points],
        )


@strawberry.type(
    description=(
        "A window of metered usage. Choose what to compute by what you select: nothing is aggregated that is not asked "
        "for.\n"
        "Numbers come from hourly roll-ups plus the still-open hour, so a report is complete to within a few seconds; "
        "see `freshAt`."
    )
)
class UsageReport:
    """One window of usage; each field is measured when it is selected."""

    start: datetime.datetime = field(description="The first instant of the window, inclusive.")
    end: datetime.datetime = field(description="The end of the window, exclusive.")
    timezone: TimeZone = field(description="The zone used for days, weeks and months.")
    label: str = field(description="A caption such as `Last 7 days`.")
    raw_calls: bool = field(
        description=(
            "Whether single calls had to be read, because no roll-up holds this filter or these dimensions: slower, and dearer in points."
        )
    )
    window: strawberry.Private[Window]
    narrowed: strawberry.Private[Narrowing]
    of_key: strawberry.Private[UUID | None]

    @resolved("Everything recorded before this instant is included.")
    async def fresh_at(self) -> datetime.datetime:
        """Ask the database."""
        return await resolvers.freshness()

    @resolved("The totals of the window.")
    async def totals(self, info: Info) -> UsageMetrics:
        """Measure."""
        return await self._totals(info, self.window)

    @resolved("The totals of the window of equal length just before, for comparison.")
    async def previous_totals(self, info: Info) -> UsageMetrics:
        """Measure."""
        return await self._totals(info, self.window.previous)

    @resolved(
        "The totals split by up to three dimensions, largest first.", directives=[Cost(weight="5"), ListSize(slicing_arguments=["first"])]
    )
    async def groups(
        self,
        info: Info,
        by: Annotated[list[Dimension], strawberry.argument(description="One to three dimensions, in order.")],
        tag: Annotated[str | None, strawberry.argument(description="The name of the tag, when `by` holds TAG.")] = UNSET,
        first: Annotated[int, strawberry.argument(description="At most this many groups, 1 to 500.")] = 50,
        order_by: Annotated[UsageGroupOrder, strawberry.argument(description="What to rank by.")] = LARGEST_FIRST,
        include_other: Annotated[
            bool, strawberry.argument(description="Whether everything past `first` is folded into one last group with `other: true`.")
        ] = False,
    ) -> list[UsageGroup]:
        """Measure."""
        question = Question(
            filter=self.narrowed,
            by=tuple(by),
            tag=tag or None,
            first=first,
            order_by=order_by.metric,
            ascending=order_by.direction is SortDirection.ASC,
            include_other=include_other,
            details=details(info),
            columns=columns(info),
        )
        return [UsageGroup.of(group) for group in await resolvers.groups(info.context, self.window, question)]

    @resolved(
        "The totals in time buckets. Empty buckets are present, with zeros.",
        directives=[Cost(weight="5"), ListSize(assumed_size=200, require_one_slicing_argument=False)],
    )
    async def series(
        self,
        info: Info,
        granularity: Annotated[
            Granularity, strawberry.argument(description="The bucket. AUTO takes hours up to 48 hours, days up to 120 days, months beyond.")
        ] = Granularity.AUTO,
    ) -> list[UsageBucket]:
        """Measure."""
        points = await resolvers.series(info.context, self.window, granularity, self.narrowed, details(info), columns(info))
        return [UsageBucket.of(point) for point in points]

    @resolved(
        "One time series for each of the largest values of a dimension; all series share the same buckets.",
        directives=[Cost(weight="10"), ListSize(slicing_arguments=["first"])],
    )
    async def series_by(
        self,
        info: Info,
        dimension: Annotated[Dimension, strawberry.argument(description="The dimension to split by.")],
        tag: Annotated[str | None, strawberry.argument(description="The name of the tag, when `dimension` is TAG.")] = UNSET,
        granularity: Annotated[Granularity, strawberry.argument(description="The bucket.")] = Granularity.AUTO,
        first: Annotated[int, strawberry.argument(description="At most this many series, 1 to 50.")] = 10,
        rank_by: Annotated[Metric, strawberry.argument(description="What to rank the series by.")] = Metric.COST,
        include_other: Annotated[
            bool, strawberry.argument(description="Whether the rest is folded into one last series with `other: true`.")
        ] = True,
    ) -> list[UsageSeries]:
        """Measure."""
        question = Question(
            filter=self.narrowed,
            by=(dimension,),
            tag=tag or None,
            first=first,
            order_by=rank_by,
            include_other=include_other,
            details=details(info),
            columns=columns(info),
        )
        return [UsageSeries.of(series) for series in await resolvers.series_by(info.context, self.window, granularity, question)]

    @resolved(
        "Activity for the workspace's activity chart, with its own rolling window: 7 days, 12 Monday-start weeks or 12 months.",
        directives=[Cost(weight="5")],
    )
    async def activity(
        self,
        info: Info,
        view: Annotated[ActivityView, strawberry.argument(description="Which chart.")] = ActivityView.DAILY,
        metric: Annotated[Metric, strawberry.argument(description="What `total`, `average` and `peak` count.")] = Metric.RUNS,
    ) -> Chart:
        """Measure."""
        from schema.activity import Activity

        return Activity.of(await resolvers.activity(info.context, view, metric, self.window, self.narrowed, details(info), columns(info)))

    @resolved(
        "The prompt-cache doctor: calls that missed what an earlier call had put into the prompt cache, dearest first.",
        directives=[Cost(weight="10"), ListSize(slicing_arguments=["first"])],
    )
    async def cache_misses(
        self, info: Info, first: Annotated[int, strawberry.argument(description="At most this many, 1 to 100.")] = 20
    ) -> list[Miss]:
        """Look them up."""
        from schema.cache_misses import CacheMiss

        return [CacheMiss.of(miss) for miss in await resolvers.misses(info.context, self.window, self.narrowed, first)]

    async def _totals(self, info: Info, window: Window) -> UsageMetrics:
        if self.of_key is None:
            return UsageMetrics.of(await resolvers.totals(info.context, window, self.narrowed, details(info), columns(info)))
        return UsageMetrics.of(await info.context.totals_of_keys.load(KeyTotals(self.of_key, window, self.narrowed, details(info), columns(info))))


def _reads_calls(info: Info, narrowed: Narrowing) -> bool:
    """Whether any field selected below the current one is answered from single calls."""
    selected = list(fields_below(info.selected_fields))
    asked: list[tuple[Dimension, ...]] = [()]
    for each in selected:
        named = each.arguments.get("by") if each.name == "groups" else each.arguments.get("dimension") if each.name == "seriesBy" else None
        if named is not None:
            asked.append(tuple(Dimension[str(name)] for name in (named if isinstance(named, list) else [named])))
    wanted = frozenset(DETAILS[each.name] for each in selected if each.name in DETAILS)
    return any(Question(filter=narrowed, by=by, details=wanted).raw_calls for by in asked)


def _only(one: T | None, given: tuple[T, ...] | None) -> tuple[T, ...] | None:
    """The values to keep: those given, or the one only, and none when those given leave it out."""
    return given if one is None else (one,) if given is None or one in given else ()


async def report(
    info: Info,
    range_: UsageRange,
    timezone: TimeZone,
    filter_: UsageFilter | None,
    *,
    of_key: UUID | None = None,
    of_app: UUID | None = None,
    of_end_user: UUID | None = None,
    of_user: UUID | None = None,
    of_model: str | None = None,
    everywhere: bool = False,
) -> UsageReport:
    """The report that the three arguments of every `usage` field ask for, nothing of it measured yet; of one thing only where it is named.

    `everywhere` is of all workspaces. Raises InvalidInput and its kin for a window that cannot be.
    """
    window = await resolvers.window(info.context, range_.wanted(), timezone, everywhere=everywhere)
    narrowed = dataclasses.replace(filter_.wanted() if filter_ else Narrowing(), everywhere=everywhere)
    narrowed = dataclasses.replace(
        narrowed,
        api_keys=_only(of_key, narrowed.api_keys),
        apps=_only(of_app, narrowed.apps),
        end_user_ids=_only(of_end_user, narrowed.end_user_ids),
        users=_only(of_user, narrowed.users),
        models=_only(of_model, narrowed.models),
    )
    return UsageReport(
        start=window.start,
        end=window.end,
        timezone=TimeZone(window.zone),
        label=window.label,
        raw_calls=_reads_calls(info, narrowed),
        window=window,
        narrowed=narrowed,
        of_key=of_key,
    )
