"""The measuring query: every number on usage comes from here, from one statement's snapshot, and is exact at any moment.

A stretch of time is read as spans for its whole days and hours, cells for its quarters of an hour, the events that are queued and in no cell
yet, and single events for the edges that fall inside a quarter (`domain/usage/statement.py`). What no cell holds (see `Question.level`) is read
from single events throughout. A test compares all of these with the plain sum of events, whatever fold and closing do meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast
from uuid import UUID

import asyncpg
import msgspec

from domain.access.callers import Caller
from domain.errors import MissingScope, OutOfRange
from domain.usage import windows
from domain.usage.bounded import bounded
from domain.usage.metrics import (
    COLUMNS,
    CREDIT_MICROUSD,
    EVERY_COLUMN,
    MOST_SERIES,
    Detail,
    Dimension,
    Metric,
    Metrics,
    Question,
    Runs,
    UsageFilter,
    Values,
)
from domain.usage.sketches import added, quantiles
from domain.usage.statement import HISTORY, IDS, MISSES, STANDS, Closed, Statement, Stretch, first_of
from domain.usage.windows import Granularity, Window, buckets
from models import database
from models.enums import Bucket, Scope


@dataclass(frozen=True, slots=True)
class Line:
    """What one combination of values used, in all and in each stretch; `other` is the folded rest, whose values are None."""

    values: Values
    other: bool
    whole_charge_microusd: int
    total: Metrics
    points: list[Metrics]

    @property
    def share(self) -> float | None:
        """Its part of what all lines, those left out too, were charged, 0 to 1; None when nothing was."""
        return self.total.charge_microusd / self.whole_charge_microusd if self.whole_charge_microusd else None


@dataclass(frozen=True, slots=True)
class Point:
    """Usage in one bucket."""

    bucket: windows.Bucket
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Group:
    """Usage that shares the same values."""

    values: Values
    other: bool
    metrics: Metrics
    share: float | None


@dataclass(frozen=True, slots=True)
class Series:
    """Usage of one value in buckets, oldest first, without gaps."""

    values: Values
    other: bool
    totals: Metrics
    points: list[Point]


async def totals(
    caller: Caller,
    window: Window,
    wanted: UsageFilter | None = None,
    details: frozenset[Detail] = frozenset(),
    columns: frozenset[str] = EVERY_COLUMN,
) -> Metrics:
    """Return all usage of a window, zeros where there was none; for the window before ask with `window.previous`. Raises as `measure`."""
    lines = await measure(caller, [(window.start, window.end)], Question(filter=wanted or UsageFilter(), details=details, columns=columns))
    return lines[0].total


async def series(
    caller: Caller,
    window: Window,
    granularity: Granularity = Granularity.AUTO,
    wanted: UsageFilter | None = None,
    details: frozenset[Detail] = frozenset(),
    columns: frozenset[str] = EVERY_COLUMN,
) -> list[Point]:
    """Return the usage of a window in buckets, empty ones included; raises as `measure` and `windows.buckets`."""
    cut = buckets(window, granularity)
    lines = await measure(caller, _stretches(cut), Question(filter=wanted or UsageFilter(), details=details, columns=columns))
    return _points(cut, lines[0])


async def groups(caller: Caller, window: Window, question: Question) -> list[Group]:
    """Return the usage of a window by values, in the order asked for, the folded rest last; raises as `measure`."""
    if not question.by:
        raise OutOfRange("One to three dimensions.", minimum=1, maximum=3, too_large=False, path=("by",))
    lines = await measure(caller, [(window.start, window.end)], question)
    return [Group(line.values, line.other, line.total, line.share) for line in lines]


async def series_by(caller: Caller, window: Window, granularity: Granularity, question: Question) -> list[Series]:
    """Return one series for each of the largest values, 50 at most, or all; they have the same buckets. Raises as `measure` and `windows.buckets`."""
    if question.first is not None and question.first > MOST_SERIES:
        raise OutOfRange(f"At most {MOST_SERIES} series.", minimum=1, maximum=MOST_SERIES, too_large=True, path=("first",))
    cut = buckets(window, granularity)
    lines = await measure(caller, _stretches(cut), question)
    return [Series(line.values, line.other, line.total, _points(cut, line)) for line in lines]


async def freshness() -> datetime:
    """Return an instant before which everything recorded is in what is measured after this call.

    It is now, or the start of the oldest transaction under way: what that writes may bear an earlier instant than its commit.
    """
    fresh: datetime = await database.fetch_value(
        """
        SELECT least(statement_timestamp(), min(a.xact_start)) FROM pg_stat_activity a
         WHERE a.datname = current_database() AND a.usename = current_user AND a.pid <> pg_backend_pid()
        """
    )
    return fresh


async def measure(caller: Caller, stretches: Sequence[Stretch], question: Question) -> list[Line]:
    """Return what was used in stretches of time that do not overlap, oldest first, in one snapshot.

    Without dimensions there is exactly one line; with them one for each combination of values that has usage, in the order asked for.
    Raises MissingScope (USAGE_READ; USAGE_READ_ALL to see other people apart; OPERATOR to rank by what upstreams charged), InvalidInput
    and its kin for what cannot be asked, or reads too many single calls.
    """
    workspace_id = caller.require(Scope.USAGE_READ)
    question.check()
    _check_sight(caller, question)
    with bounded():
        statement = Statement(workspace_id, stretches, question, None if question.filter.everywhere else await _closed(workspace_id, question))
        rows = await database.fetch(statement.sql, *statement.arguments)
    return _lines(rows, len(stretches), question, _Sums(question, statement.summed))


async def _closed(workspace_id: UUID, question: Question) -> Closed:
    """Look up until when spans are whole; what it says may be old by the time it is used, and is still true."""
    if question.level is None:
        return Closed()
    row = await database.fetch_row("SELECT days_until, hours_until FROM usage_closing WHERE workspace_id = $1", workspace_id)
    return Closed(*row) if row else Closed()


def _check_sight(caller: Caller, question: Question) -> None:
    if question.filter.everywhere:
        caller.require(Scope.OPERATOR)
    users = question.filter.users
    if Scope.USAGE_READ_ALL not in caller.scopes and (Dimension.USER in question.by or (users is not None and set(users) != {caller.user_id})):
        raise MissingScope((Scope.USAGE_READ_ALL.name,))
    if question.by and question.order_by in (Metric.UPSTREAM_COST, Metric.MARGIN):
        caller.require(Scope.OPERATOR)


# ── the answer ──

_FIRST = 4
"""Where the sums of a row begin, after its stretch, its key, its place and what all lines were charged."""


class _Sums:
    """Where in a row the columns of Metrics are, and how they stand: rows have what was added up, and nothing else."""

    def __init__(self, question: Question, summed: Sequence[str]) -> None:
        places = {name: place for place, name in enumerate(summed)}
        self._part = slice(_FIRST, _FIRST + len(summed))
        self._zeros = (0,) * len(summed)
        self._columns = [places.get(column) for column in COLUMNS]
        self._stands = [places[outcome] for outcome in STANDS] if Detail.RUNS in question.details else []
        self._listed = places.get("list_microusd")
        self._details = question.details
        self.nothing = self.metrics([], 0, 0) if not self._details else None

    def listed(self, row: asyncpg.Record) -> int:
        """Return the list value of a row; 0 when it was not added up, and nothing is made of it."""
        return 0 if self._listed is None else int(row[_FIRST + self._listed])

    def metrics(self, rows: Sequence[asyncpg.Record], before: int, after: int) -> Metrics:
        """Return what some stretches of one line add up to: none, one of them, or all that have anything; list values before and after it are for credits."""
        parts = [row[self._part] for row in rows]
        sums = tuple(map(int, parts[0] if len(parts) == 1 else map(sum, zip(*parts, strict=True)))) or self._zeros
        # None for what was not asked for, see Metrics
        counted = [cast("int", None) if place is None else sums[place] for place in self._columns]
        asked = self._details
        if not asked:
            return Metrics(*counted)
        return Metrics(
            *counted,
            credits=after // CREDIT_MICROUSD - before // CREDIT_MICROUSD if Detail.CREDITS in asked else None,
            other_buckets=_other_buckets(rows) if Detail.OTHER_BUCKETS in asked else None,
            runs=_runs(counted[0], *(sums[place] for place in self._stands)) if Detail.RUNS in asked else None,
            end_users=_people(rows, Detail.END_USERS) if Detail.END_USERS in asked else None,
            conversations=_people(rows, Detail.CONVERSATIONS) if Detail.CONVERSATIONS in asked else None,
            latency=quantiles(_told(rows, "latency_sketch")) if Detail.LATENCY in asked else None,
            first_token=quantiles(_told(rows, "first_token_sketch")) if Detail.FIRST_TOKEN in asked else None,
            cache_miss_microusd=sum(int(row[MISSES] or 0) for row in rows) if Detail.CACHE_MISSES in asked else None,
        )


def _lines(rows: Sequence[asyncpg.Record], count: int, question: Question, sums: _Sums) -> list[Line]:
    by_place: dict[int, dict[int, asyncpg.Record]] = {}
    for row in rows:
        by_place.setdefault(row[2], {})[row[0]] = row
    if not question.by:
        by_place.setdefault(1, {})
    lines = []
    for place, found in sorted(by_place.items()):
        other = place > first_of(question)
        origin = listed = sums.listed(found[HISTORY]) if HISTORY in found else 0
        nothing, points = sums.nothing or sums.metrics([], listed, listed), []
        for n in range(count):
            if n in found:
                before, listed = listed, listed + sums.listed(found[n])
                points.append(sums.metrics([found[n]], before, listed))
            else:
                points.append(nothing)
        shown = [found[n] for n in range(count) if n in found]
        total = points[0] if count == 1 else sums.metrics(shown, origin, listed)
        some = next(iter(found.values())) if found else None
        key = None if other or some is None else some[1]
        values = tuple(_value(dimension, None if key is None else key[index]) for index, dimension in enumerate(question.by))
        whole = int(some[3]) if some is not None else 0
        lines.append(Line(Values(question.by, values), other, whole if question.by else total.charge_microusd, total, points))
    return lines


def _runs(requests: int, succeeded: int, cancelled: int, running: int, pending: int) -> Runs:
    return Runs(succeeded, requests - succeeded - cancelled, cancelled, running, pending)


def _people(rows: Sequence[asyncpg.Record], detail: Detail) -> int:
    """People of one stretch, or of all of them, who may have come in several."""
    return int(rows[0][f"{detail.value}_count{'_whole' if len(rows) > 1 else ''}"] or 0) if rows else 0


def _told(rows: Sequence[asyncpg.Record], column: str) -> dict[int, int]:
    return added(msgspec.json.decode(row[column], type=dict[int, int]) for row in rows if row[column] is not None)


def _other_buckets(rows: Sequence[asyncpg.Record]) -> dict[Bucket, int]:
    total: dict[str, int] = {}
    for row in rows:
        for name, quantity in msgspec.json.decode(row["other_buckets_sum"] or "{}", type=dict[str, int]).items():
            total[name] = total.get(name, 0) + quantity
    return {Bucket(name): quantity for name, quantity in sorted(total.items()) if quantity}


def _value(dimension: Dimension, text: str | None) -> str | UUID | int | None:
    if text is None:
        return None
    if dimension in IDS:
        return UUID(text)
    return int(text) if dimension is Dimension.HTTP_STATUS else text


def _stretches(cut: Sequence[windows.Bucket]) -> list[Stretch]:
    return [(bucket.start, bucket.end) for bucket in cut]


def _points(cut: Sequence[windows.Bucket], line: Line) -> list[Point]:
    return [Point(bucket, metrics) for bucket, metrics in zip(cut, line.points, strict=True)]
