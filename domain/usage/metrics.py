"""What is counted, by what it is split, and what narrows it: the words of every usage question and answer."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from uuid import UUID

from domain.errors import InvalidInput, OutOfRange, Required
from models.enums import Bucket, UsageOutcome

CREDIT_MICROUSD = 10_000
"""One credit of document 1 is a US cent of list value."""
MOST_DIMENSIONS = 3
MOST_GROUPS = 500
MOST_SERIES = 50
MOST_VALUES = 500
LONGEST_TAG = 64

COLUMNS = (
    "requests",
    "errors",
    "units",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "characters",
    "lines",
    "charge_microusd",
    "list_microusd",
    "upstream_cost_picousd",
    "wallet_microusd",
)
"""What events and cells count; `other_buckets` of events is in no cell."""
EVERY_COLUMN = frozenset(COLUMNS)
TOKENS = frozenset({"input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens"})

CALLS = TOKENS | {"requests", "errors", "charge_microusd"}
"""What most reports tell: calls, errors, tokens and what was charged."""


class Dimension(StrEnum):
    """What usage can be split by. MODEL alone, and APP, API_KEY and OUTCOME together, are kept in cells; the others read single calls."""

    MODEL = "model"
    PROVIDER = "provider"
    APP = "app"
    API_KEY = "api_key"
    USER = "user"
    END_USER = "end_user"
    CONVERSATION = "conversation"
    TAG = "tag"
    WORKSPACE = "workspace"
    PRESET = "preset"
    API_NAME = "api_name"
    ENDPOINT = "endpoint"
    LANGUAGE = "language"
    OUTCOME = "outcome"
    HTTP_STATUS = "http_status"


class Metric(StrEnum):
    """What usage can be ranked by."""

    REQUESTS = "requests"
    ERRORS = "errors"
    TOKENS = "tokens"
    LIST_VALUE = "list_value"
    COST = "cost"
    UPSTREAM_COST = "upstream_cost"
    MARGIN = "margin"
    CREDITS = "credits"
    CHARACTERS = "characters"
    LINES = "lines"
    RUNS = "runs"
    UNITS = "units"


COLUMNS_OF: Mapping[Metric, frozenset[str]] = {
    Metric.REQUESTS: frozenset({"requests"}),
    Metric.ERRORS: frozenset({"errors"}),
    Metric.TOKENS: TOKENS,
    Metric.LIST_VALUE: frozenset({"list_microusd"}),
    Metric.COST: frozenset({"charge_microusd"}),
    Metric.UPSTREAM_COST: frozenset({"upstream_cost_picousd"}),
    Metric.MARGIN: frozenset({"charge_microusd", "upstream_cost_picousd"}),
    Metric.CREDITS: frozenset({"list_microusd"}),
    Metric.CHARACTERS: frozenset({"characters"}),
    Metric.LINES: frozenset({"lines"}),
    Metric.RUNS: frozenset({"requests"}),
    Metric.UNITS: frozenset({"units"}),
}
"""The columns that a metric is made of."""


class Detail(StrEnum):
    """What is computed only when asked for. RUNS needs open calls, CREDITS all history, END_USERS and CONVERSATIONS whole days, apart by app at
    most; OTHER_BUCKETS reads single calls."""

    RUNS = "runs"
    CREDITS = "credits"
    END_USERS = "end_users"
    CONVERSATIONS = "conversations"
    OTHER_BUCKETS = "other_buckets"
    LATENCY = "latency"
    FIRST_TOKEN = "first_token"  # noqa: S105 - a moment, no secret
    CACHE_MISSES = "cache_misses"


NOTHING_BUT = {Metric.CREDITS: frozenset({Detail.CREDITS}), Metric.RUNS: frozenset({Detail.RUNS})}
"""The detail without which a metric has no value."""
FROM_CALLS = frozenset({Detail.OTHER_BUCKETS})
PEOPLE = frozenset({Detail.END_USERS, Detail.CONVERSATIONS})


@dataclass(frozen=True, slots=True)
class TagFilter:
    """Matches calls that carry a tag, with one of `values`; None means any."""

    name: str
    values: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Narrows a report: fields must all match, the values of one are alternatives; None matches all.

    `everywhere` takes all workspaces together, for operators. End users and conversations are the names that calls give; `end_user_ids` are rows,
    which know their app. A preset is `cursor` for every version or `cursor@3` for one.
    """

    models: tuple[str, ...] | None = None
    providers: tuple[str, ...] | None = None
    apps: tuple[UUID, ...] | None = None
    api_keys: tuple[UUID, ...] | None = None
    users: tuple[UUID, ...] | None = None
    end_users: tuple[str, ...] | None = None
    end_user_ids: tuple[UUID, ...] | None = None
    conversations: tuple[str, ...] | None = None
    presets: tuple[str, ...] | None = None
    api_names: tuple[str, ...] | None = None
    endpoints: tuple[str, ...] | None = None
    languages: tuple[str, ...] | None = None
    outcomes: tuple[UsageOutcome, ...] | None = None
    tags: tuple[TagFilter, ...] = ()
    everywhere: bool = False

    def values(self) -> dict[Dimension, tuple[str | UUID, ...]]:
        """Return the lists that are given, tags aside, by what they narrow; raises InvalidInput and OutOfRange (path `filter...`)."""
        given: dict[Dimension, tuple[str | UUID, ...]] = {}
        for dimension, (name, values) in {
            Dimension.MODEL: ("models", self.models),
            Dimension.PROVIDER: ("providers", self.providers),
            Dimension.APP: ("apps", self.apps),
            Dimension.API_KEY: ("apiKeys", self.api_keys),
            Dimension.USER: ("users", self.users),
            Dimension.END_USER: ("endUsers", self.end_users),
            Dimension.CONVERSATION: ("conversations", self.conversations),
            Dimension.PRESET: ("presets", self.presets),
            Dimension.API_NAME: ("apiNames", self.api_names),
            Dimension.ENDPOINT: ("endpoints", self.endpoints),
            Dimension.LANGUAGE: ("languages", self.languages),
            Dimension.OUTCOME: ("outcomes", self.outcomes),
        }.items():
            if values is not None:
                given[dimension] = _checked(values, name)
        if self.end_user_ids is not None:
            _checked(self.end_user_ids, "endUsers")
        for tag in self.tags:
            _checked((tag.name, *(tag.values or ())), "tags")
        return given


EVERYTHING = UsageFilter()


def _checked(values: tuple[str | UUID, ...], name: str) -> tuple[str | UUID, ...]:
    if len(values) > MOST_VALUES:
        raise OutOfRange(f"A filter has at most {MOST_VALUES} values.", minimum=0, maximum=MOST_VALUES, too_large=True, path=("filter", name))
    if any(isinstance(value, str) and "\x00" in value for value in values):
        raise InvalidInput("A text has no NUL character.", path=("filter", name))
    return values


@dataclass(frozen=True, slots=True)
class Question:
    """What to measure.

    `by` splits by up to three dimensions, `tag` names the tag when one is TAG. Of the values, the `first` by `order_by` are kept; the rest
    is folded into one when `include_other`, and left out otherwise. Without `first` all are kept. Only `columns` are added up, and what order and
    details need.
    """

    filter: UsageFilter = EVERYTHING
    by: tuple[Dimension, ...] = ()
    tag: str | None = None
    first: int | None = 50
    order_by: Metric = Metric.COST
    ascending: bool = False
    include_other: bool = False
    details: frozenset[Detail] = frozenset()
    columns: frozenset[str] = EVERY_COLUMN

    def check(self) -> None:
        """Raise InvalidInput, Required or OutOfRange (paths `by`, `tag`, `first`, `filter...`) for what cannot be asked."""
        if len(set(self.by)) < len(self.by):
            raise InvalidInput("Each dimension is named once.", path=("by",))
        if len(self.by) > MOST_DIMENSIONS:
            raise OutOfRange(f"At most {MOST_DIMENSIONS} dimensions.", minimum=1, maximum=MOST_DIMENSIONS, too_large=True, path=("by",))
        if Dimension.TAG in self.by:
            if not self.tag:
                raise Required("TAG needs the name of a tag.", path=("tag",))
            if len(self.tag) > LONGEST_TAG or "\x00" in self.tag:
                raise InvalidInput(f"A tag's name has at most {LONGEST_TAG} characters.", path=("tag",))
        if self.first is not None and not 1 <= self.first <= MOST_GROUPS:
            raise OutOfRange(f"At least 1 and at most {MOST_GROUPS}.", minimum=1, maximum=MOST_GROUPS, too_large=self.first > 1, path=("first",))

    @property
    def level(self) -> int | None:
        """The level of cells that answers it; None when single calls must be read."""
        needs = {*self.by, *self.filter.values()} - {Dimension.WORKSPACE}
        if self.filter.tags or self.filter.end_user_ids is not None or self.details & FROM_CALLS:
            return None
        if not needs:
            return 0
        if needs == {Dimension.MODEL}:
            return 1
        if needs == {Dimension.LANGUAGE}:
            return 3
        if needs <= {Dimension.APP, Dimension.API_KEY, Dimension.OUTCOME}:
            return 2
        return None

    @property
    def people_by_day(self) -> bool:
        """Whether the people of whole days answer it: those are kept apart by app alone."""
        return not self.filter.tags and self.filter.end_user_ids is None and {*self.by, *self.filter.values()} <= {Dimension.APP, Dimension.WORKSPACE}

    @property
    def raw_calls(self) -> bool:
        """Whether single calls have to be read, because no cell holds this filter or these dimensions: slower, and as exact."""
        return self.level is None or (not self.people_by_day and not PEOPLE.isdisjoint(self.details))

    def wants(self, detail: Detail) -> bool:
        """Tell whether a detail is asked for, or needed for the order."""
        return detail in self.details or (detail is Detail.RUNS and bool(self.by) and self.order_by is Metric.RUNS)


@dataclass(frozen=True, slots=True)
class Runs:
    """Calls by how they stand: pending are admitted without progress yet, running have some; refused ones count as failed."""

    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    running: int = 0
    pending: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.completed + self.failed + self.cancelled + self.running + self.pending


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Quantiles of a duration in milliseconds, each at most 2.5 % off the duration of that rank."""

    p50: float
    p90: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """Everything that is counted, COLUMNS first and in their order; test calls stand in none of it.

    Details that were not asked for are None. So is a column that was not, whatever its type says: what is worked out from it raises TypeError,
    where a zero would pass for a number.
    """

    requests: int = 0
    errors: int = 0
    units: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    characters: int = 0
    lines: int = 0
    charge_microusd: int = 0
    list_microusd: int = 0
    upstream_cost_picousd: int = 0
    wallet_microusd: int = 0
    _: KW_ONLY
    credits: int | None = None
    other_buckets: dict[Bucket, int] | None = None
    runs: Runs | None = None
    end_users: int | None = None
    conversations: int | None = None
    latency: Quantiles | None = None
    first_token: Quantiles | None = None
    cache_miss_microusd: int | None = None

    def value(self, metric: Metric) -> int:
        """Return one number by its name: money in microdollars, CREDITS and RUNS where they were asked for."""
        match metric:
            case Metric.LIST_VALUE:
                return self.list_microusd
            case Metric.COST:
                return self.charge_microusd
            case Metric.UPSTREAM_COST:
                return self.upstream_cost_microusd
            case Metric.MARGIN:
                return self.margin_microusd
            case Metric.RUNS:
                assert self.runs is not None, "runs are measured when they are asked for"
                return self.runs.total
        number: int | None = getattr(self, metric.value)
        assert number is not None, "credits are measured when they are asked for"
        return number

    @property
    def tokens(self) -> int:
        """Uncached input, output, cache reads and cache writes."""
        return self.input_tokens + self.output_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def cache_write_tokens(self) -> int:
        """Input written to the prompt cache, for whatever time."""
        return self.cache_write_5m_tokens + self.cache_write_1h_tokens

    @property
    def error_rate(self) -> float | None:
        """Errors of requests, 0 to 1; None without requests."""
        return self.errors / self.requests if self.requests else None

    @property
    def cache_hit_rate(self) -> float | None:
        """Cache reads of all input, 0 to 1; None without input."""
        given = self.input_tokens + self.cache_read_tokens + self.cache_write_tokens
        return self.cache_read_tokens / given if given else None

    @property
    def characters_per_line(self) -> float | None:
        """Mean characters of a line; None without lines."""
        return self.characters / self.lines if self.lines else None

    @property
    def platform_cost_microusd(self) -> int:
        """The part of the charge for calls on the installation's own provider keys: all of it today."""
        return self.charge_microusd

    @property
    def upstream_cost_microusd(self) -> int:
        """What upstreams charged, a started microdollar counted whole; operators only."""
        return -(-self.upstream_cost_picousd // 1_000_000)

    @property
    def margin_microusd(self) -> int:
        """Charge less upstream cost; operators only."""
        return self.charge_microusd - self.upstream_cost_microusd


@dataclass(frozen=True, slots=True)
class Values:
    """What a group or series stands for: the dimensions asked for, in order; a call without a value has None there."""

    by: tuple[Dimension, ...]
    values: tuple[str | UUID | int | None, ...]

    def get(self, dimension: Dimension) -> str | UUID | int | None:
        """Return the value of a dimension, None when it was not asked for: UUIDs for APP, API_KEY, USER and WORKSPACE, an int for HTTP_STATUS."""
        return self.values[self.by.index(dimension)] if dimension in self.by else None
