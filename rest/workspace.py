"""Document 1: usage of a workspace in the caller's own time zone, in credits, characters, lines and runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Generic, Literal, TypeVar

from domain.errors import Forbidden
from domain.money import subscriptions
from domain.usage import activity, measure, windows
from domain.usage.activity import ActivityView
from domain.usage.measure import Point
from domain.usage.metrics import Detail, Dimension, Metric, Metrics, Question
from domain.usage.windows import Days, Granularity, RelativeRange, Window
from models.enums import ApiKeyMode, Resource
from rest.doors import Ask, Document, Operation
from rest.fields import Asked, Told
from rest.shapes import ENVELOPED, AnswerMeta, EnvelopedError, meta

SECOND = timedelta(seconds=1)
COUNTED = frozenset({Detail.CREDITS, Detail.RUNS})
CONTENT = frozenset({"characters", "lines"})
Data = TypeVar("Data")


RANGES = {
    "7d": RelativeRange.LAST_7_DAYS,
    "30d": RelativeRange.LAST_30_DAYS,
    "90d": RelativeRange.LAST_90_DAYS,
    "12m": RelativeRange.LAST_12_MONTHS,
}
Span = Literal["24h", "7d", "30d", "90d", "12m"]
View = Literal["daily", "weekly", "monthly"]


class UsageQuery(Asked):
    """Which window of whole local days, today included (12m is this month and the 11 before), which chart, and whose days."""

    range: Span = "30d"
    activity_view: View = "daily"
    timezone: str = "UTC"


class Period(Told):
    """First and last second of a window, in UTC."""

    start: datetime
    end: datetime


class CreditUse(Told):
    """Whole credits used, those that the plan includes for its longest window, and the part in percent; zero without a plan, or without a limit."""

    used: int
    quota: int
    percent: int


class CharacterCount(Told):
    """Characters of the text that was produced."""

    total: int


class LineCount(Told):
    """Lines of that text, and the mean characters of one; zero without lines."""

    total: int
    avg_chars_per_line: int | float


class RunCount(Told):
    """Runs by how they stand; the parts add up to the total."""

    total: int
    completed: int
    failed: int
    cancelled: int
    running: int
    pending: int


class Bar(Told):
    """One day, week or month of the chart, its end inclusive."""

    label: str
    start: datetime
    end: datetime
    credits: int
    characters: int
    lines: int
    runs: int


class Peak(Told):
    """The first of the bars with most lines."""

    value: int
    label: str
    start: datetime
    end: datetime


class Activity(Told):
    """The chart of lines, in a window of its own."""

    view: View
    bucket_unit: str
    range_label: str
    total: int
    avg: float
    buckets: list[Bar]
    peak: Peak


class Day(Told):
    """One local day."""

    date: date
    credits: int
    characters: int
    lines: int
    runs: int


class Asking(Told):
    """What was asked, with its period."""

    range: Span
    activity_view: View
    timezone: str
    period: Period


class Summary(Asking):
    """All usage of a window, its days, and the chart."""

    credits: CreditUse
    characters: CharacterCount
    lines: LineCount
    runs: RunCount
    activity: Activity
    daily: list[Day]


class LanguageUse(Told):
    """Usage in one language; null where a request names none."""

    language: str | None
    credits: int
    characters: int
    lines: int
    runs: int


class ByLanguage(Asking):
    """Usage of a window by language, most lines first; credits of a language are rounded down by themselves."""

    credits: CreditUse
    characters: CharacterCount
    lines: LineCount
    runs: RunCount
    languages: list[LanguageUse]


class Charted(Asking):
    """The chart alone."""

    activity: Activity


class Enveloped(Told, Generic[Data]):
    """What was asked for, and the answer's own data."""

    data: Data
    meta: AnswerMeta


@dataclass(frozen=True, slots=True)
class _Question:
    window: Window
    asked: Asking


def _question(ask: Ask[UsageQuery]) -> _Question:
    if ask.caller.key_mode is ApiKeyMode.TEST:
        raise Forbidden("These paths take a session token or a live API key; this is a test key.")
    given, now = ask.given, ask.caller.at
    if given.range == "24h":
        window = windows.resolve(Days.ending(now, 1, given.timezone), given.timezone, now)
    else:
        window = windows.resolve(RANGES[given.range], given.timezone, now)
    period = Period(start=window.start, end=window.end - SECOND)
    return _Question(window, Asking(range=given.range, activity_view=given.activity_view, timezone=given.timezone, period=period))


def _runs(metrics: Metrics) -> int:
    return metrics.value(Metric.RUNS)


def _credits(metrics: Metrics) -> int:
    return metrics.value(Metric.CREDITS)


def _bar(point: Point) -> Bar:
    return Bar(
        label=point.bucket.label,
        start=point.bucket.start,
        end=point.bucket.end - SECOND,
        credits=_credits(point.metrics),
        characters=point.metrics.characters,
        lines=point.metrics.lines,
        runs=_runs(point.metrics),
    )


def _days(points: Sequence[Point]) -> list[Day]:
    return [
        Day(
            date=point.bucket.day,
            credits=_credits(point.metrics),
            characters=point.metrics.characters,
            lines=point.metrics.lines,
            runs=_runs(point.metrics),
        )
        for point in points
    ]


async def _credit_use(ask: Ask[UsageQuery], used: int) -> CreditUse:
    included = subscriptions.longest(await subscriptions.quotas(ask.caller.workspace(), at=ask.caller.at), Resource.CREDITS)
    quota = included.limit or 0 if included else 0
    return CreditUse(used=used, quota=quota, percent=used * 100 // quota if quota else 0)


def _line_count(metrics: Metrics) -> LineCount:
    mean = metrics.characters_per_line or 0
    return LineCount(total=metrics.lines, avg_chars_per_line=int(mean) if mean == int(mean) else mean)


def _run_count(metrics: Metrics) -> RunCount:
    runs = metrics.runs
    assert runs is not None
    return RunCount(
        total=runs.total, completed=runs.completed, failed=runs.failed, cancelled=runs.cancelled, running=runs.running, pending=runs.pending
    )


async def _activity(ask: Ask[UsageQuery]) -> Activity:
    chart = await activity.chart(ask.caller, ActivityView(ask.given.activity_view), Metric.LINES, ask.given.timezone, ask.caller.at, details=COUNTED, columns=CONTENT)
    bars = [_bar(point) for point in chart.bars]
    peak = bars[chart.bars.index(chart.peak)] if chart.peak else bars[0]
    return Activity(
        view=ask.given.activity_view,
        bucket_unit=chart.unit.value,
        range_label=chart.window.label,
        total=chart.total,
        avg=chart.average,
        buckets=bars,
        peak=Peak(value=peak.lines, label=peak.label, start=peak.start, end=peak.end),
    )


async def _summary(ask: Ask[UsageQuery]) -> Enveloped[Summary]:
    question = _question(ask)
    (days,) = await measure.series_by(ask.caller, question.window, Granularity.DAY, Question(details=COUNTED, columns=CONTENT))
    used = days.totals
    told = Summary(
        **dict(question.asked),
        credits=await _credit_use(ask, _credits(used)),
        characters=CharacterCount(total=used.characters),
        lines=_line_count(used),
        runs=_run_count(used),
        activity=await _activity(ask),
        daily=_days(days.points),
    )
    return Enveloped(data=told, meta=meta(ask.request_id))


async def _by_language(ask: Ask[UsageQuery]) -> Enveloped[ByLanguage]:
    question = _question(ask)
    used = await measure.totals(ask.caller, question.window, details=COUNTED, columns=CONTENT)
    groups = await measure.groups(
        ask.caller, question.window, Question(by=(Dimension.LANGUAGE,), first=None, order_by=Metric.LINES, details=COUNTED, columns=CONTENT)
    )
    told = ByLanguage(
        **dict(question.asked),
        credits=await _credit_use(ask, _credits(used)),
        characters=CharacterCount(total=used.characters),
        lines=_line_count(used),
        runs=_run_count(used),
        languages=[
            LanguageUse(
                language=None if (language := group.values.get(Dimension.LANGUAGE)) is None else str(language),
                credits=_credits(group.metrics),
                characters=group.metrics.characters,
                lines=group.metrics.lines,
                runs=_runs(group.metrics),
            )
            for group in groups
        ],
    )
    return Enveloped(data=told, meta=meta(ask.request_id))


async def _charted(ask: Ask[UsageQuery]) -> Enveloped[Charted]:
    question = _question(ask)
    return Enveloped(data=Charted(**dict(question.asked), activity=await _activity(ask)), meta=meta(ask.request_id))


DOCUMENT = Document(
    name="Workspace usage",
    shape=lambda headers: ENVELOPED,
    errors=EnvelopedError,
    operations=(
        Operation("GET", "/api/v1/usage/summary", "Usage of a window, its days, and the activity chart.", UsageQuery, Enveloped[Summary], _summary, refusals=(422,)),
        Operation("GET", "/api/v1/usage/by-language", "Usage of a window by language.", UsageQuery, Enveloped[ByLanguage], _by_language, refusals=(422,)),
        Operation("GET", "/api/v1/usage/activity", "The activity chart.", UsageQuery, Enveloped[Charted], _charted, refusals=(422,)),
    ),
)
