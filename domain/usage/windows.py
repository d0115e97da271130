"""Windows of time and their buckets: pure arithmetic in any IANA zone, right across every change of its clock."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Self
from zoneinfo import ZoneInfo

from domain.errors import InvalidInput, OutOfRange
from domain.periods import check_zone

LONGEST = timedelta(days=400)
LONGEST_HOURLY = timedelta(days=31)
LONGEST_BY_MINUTE = timedelta(hours=6)
AUTO_HOURLY = timedelta(hours=48)
AUTO_DAILY = timedelta(days=120)
FIRST_YEAR, LAST_YEAR = 1971, 9990  # beyond them some zone's arithmetic leaves what datetime can say

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


class RelativeRange(StrEnum):
    """A window that ends now; its last hour, day or month is the one under way."""

    LAST_HOUR = "last_hour"
    LAST_24_HOURS = "last_24_hours"
    LAST_7_DAYS = "last_7_days"
    LAST_30_DAYS = "last_30_days"
    LAST_90_DAYS = "last_90_days"
    LAST_12_MONTHS = "last_12_months"
    MONTH_TO_DATE = "month_to_date"


class BillingPeriod(StrEnum):
    """A billing period."""

    CURRENT = "current"
    PREVIOUS = "previous"


class Granularity(StrEnum):
    """The width of a bucket. AUTO takes hours up to 48 hours, days up to 120 days, months beyond."""

    AUTO = "auto"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


WIDEST = {
    Granularity.AUTO: LONGEST,
    Granularity.MINUTE: LONGEST_BY_MINUTE,
    Granularity.HOUR: LONGEST_HOURLY,
    Granularity.DAY: LONGEST,
    Granularity.WEEK: LONGEST,
    Granularity.MONTH: LONGEST,
}
"""The widest window of each granularity. Told in whole days, that of minutes is 0: it is shorter than a day."""


@dataclass(frozen=True, slots=True)
class Between:
    """From one instant to another; until now without an end. Both aware."""

    start: datetime
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Days:
    """From one local day to another, both included; until today without a last."""

    first: date
    last: date | None = None

    @classmethod
    def ending(cls, now: datetime, count: int, zone: str) -> Self:
        """Return the last `count` local days, today included; raises InvalidInput for an unknown zone (path `timezone`)."""
        check_zone(zone, path=("timezone",))
        today = now.astimezone(ZoneInfo(zone)).date()
        return cls(today - (count - 1) * DAY, today)


Range = RelativeRange | Between | Days | BillingPeriod
"""Which window to report. A billing period is the local calendar month; `billing_periods` knows that of a subscription."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time in UTC, `start` inclusive and `end` exclusive, with the zone whose days it has.

    A window that is under way ends with the hour, day or month under way, so that its buckets are whole. `previous_start` begins the
    window of equal length just before: as many local days or months, or as much time.
    """

    start: datetime
    end: datetime
    zone: str
    label: str
    now: datetime
    previous_start: datetime

    @property
    def previous(self) -> "Window":
        """The window of equal length just before."""
        return Window(self.previous_start, self.start, self.zone, "Previous", self.now, self.previous_start - (self.start - self.previous_start))


@dataclass(frozen=True, slots=True)
class Bucket:
    """One stretch of a window in UTC, `end` exclusive; `label` is its local start, `partial` whether it is not over yet."""

    start: datetime
    end: datetime
    label: str
    partial: bool

    @property
    def day(self) -> date:
        """The local day of a bucket that is one."""
        return date.fromisoformat(self.label)


_DAYS = {RelativeRange.LAST_7_DAYS: 7, RelativeRange.LAST_30_DAYS: 30, RelativeRange.LAST_90_DAYS: 90}


def resolve(wanted: Range, zone: str, now: datetime) -> Window:
    """Return the window that `wanted` means at `now` in an IANA zone.

    Raises InvalidInput for an unknown zone (path `timezone`), an end that is not after its start or an instant without an offset, and
    OutOfRange beyond 400 days (paths `range.between...`, `range.days...`).
    """
    check_zone(zone, path=("timezone",))
    place = ZoneInfo(zone)
    now = now.astimezone(UTC)
    today = now.astimezone(place).date()
    if isinstance(wanted, Between):
        return _between(wanted, zone, place, now)
    if isinstance(wanted, Days):
        return _days(wanted, zone, place, now, today)
    if isinstance(wanted, BillingPeriod):
        first = _months(today.replace(day=1), 0 if wanted is BillingPeriod.CURRENT else -1)
        return Window(
            start_of_day(first, place),
            start_of_day(_months(first, 1), place),
            zone,
            f"Billing period {first:%Y-%m}",
            now,
            start_of_day(_months(first, -1), place),
        )
    label = wanted.name.replace("_", " ").capitalize()
    if wanted is RelativeRange.LAST_HOUR:
        end = _floor(now, place, MINUTE) + MINUTE
        return Window(end - HOUR, end, zone, label, now, end - 2 * HOUR)
    if wanted is RelativeRange.LAST_24_HOURS:
        start = _floor(now, place, HOUR)
        end = _next(start, place, HOUR)
        for _ in range(23):
            start = _floor(start - timedelta(microseconds=1), place, HOUR)
        return Window(start, end, zone, label, now, start - (end - start))
    if wanted is RelativeRange.LAST_12_MONTHS:
        first = _months(today.replace(day=1), -11)
        return Window(
            start_of_day(first, place), start_of_day(_months(first, 12), place), zone, label, now, start_of_day(_months(first, -12), place)
        )
    first = today.replace(day=1) if wanted is RelativeRange.MONTH_TO_DATE else today - (_DAYS[wanted] - 1) * DAY
    return _local_days(first, today, zone, place, label, now)


def _between(wanted: Between, zone: str, place: ZoneInfo, now: datetime) -> Window:
    path = ("range", "between")
    if wanted.start.tzinfo is None or (wanted.end is not None and wanted.end.tzinfo is None):
        raise InvalidInput("An instant has an offset from UTC, or Z.", path=path)
    _check_year(wanted.start.year, (*path, "start"))
    start, end = wanted.start.astimezone(UTC), now
    if wanted.end is not None:
        _check_year(wanted.end.year, (*path, "end"))
        end = wanted.end.astimezone(UTC)
    if end <= start:
        raise InvalidInput("A window ends after it starts.", path=(*path, "start" if wanted.end is None else "end"))
    _check_length(_length(start, end, place), LONGEST, "A window has 400 days at most.", path)
    label = " to ".join(_local(instant, place).strftime("%Y-%m-%dT%H:%M") for instant in (start, end))
    return Window(start, end, zone, label, now, start - (end - start))


def _days(wanted: Days, zone: str, place: ZoneInfo, now: datetime, today: date) -> Window:
    path = ("range", "days")
    _check_year(wanted.first.year, (*path, "first"))
    last = wanted.last or today
    _check_year(last.year, (*path, "last"))
    if last < wanted.first:
        raise InvalidInput("The last day is not before the first.", path=(*path, "first" if wanted.last is None else "last"))
    _check_length(last - wanted.first + DAY, LONGEST, "A window has 400 days at most.", path)
    label = f"{wanted.first}" if last == wanted.first else f"{wanted.first} to {last}"
    window = _local_days(wanted.first, last, zone, place, label, now)
    if window.start == window.end:
        raise InvalidInput("This zone has skipped that day.", path=path)
    return window


def _local_days(first: date, last: date, zone: str, place: ZoneInfo, label: str, now: datetime) -> Window:
    before = first - (last - first + DAY)
    return Window(start_of_day(first, place), start_of_day(last + DAY, place), zone, label, now, start_of_day(before, place))


def _check_year(year: int, path: tuple[str, ...]) -> None:
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise InvalidInput(f"A window lies in the years {FIRST_YEAR} to {LAST_YEAR}.", path=path)


def _check_length(length: timedelta, longest: timedelta, message: str, path: tuple[str, ...]) -> None:
    if length > longest:
        raise OutOfRange(message, minimum=0, maximum=int(longest.total_seconds()), too_large=True, path=path)


def _length(start: datetime, end: datetime, place: ZoneInfo) -> timedelta:
    """Return the shorter of the real and the local length: October has 31 days, whatever its clock did."""
    return min(end - start, _local(end, place) - _local(start, place))


def granularity_of(window: Window, granularity: Granularity) -> Granularity:
    """Return the granularity itself, or for AUTO the one that the window's length chooses; raises OutOfRange when the window is too long for it."""
    length = _length(window.start, window.end, ZoneInfo(window.zone))
    if granularity is Granularity.AUTO:
        return Granularity.HOUR if length <= AUTO_HOURLY else Granularity.DAY if length <= AUTO_DAILY else Granularity.MONTH
    if granularity is Granularity.MINUTE:
        _check_length(length, LONGEST_BY_MINUTE, "Minutes are for windows up to 6 hours.", ("granularity",))
    if granularity is Granularity.HOUR:
        _check_length(length, LONGEST_HOURLY, "Hours are for windows up to 31 days.", ("granularity",))
    return granularity


def buckets(window: Window, granularity: Granularity = Granularity.AUTO) -> list[Bucket]:
    """Cut a window into buckets, oldest first, without gap or overlap; those at its ends may be cut short by it.

    Days, weeks (from Monday) and months are local and as long as the clock made them. Hours and minutes are real ones that begin with the
    local clock's: a day of 25 hours has 25; where a clock moves by half an hour, one of them is cut there. A day that a zone left out is no
    bucket. Raises OutOfRange (path `granularity`) for hours over 31 days and minutes over 6 hours.
    """
    unit = granularity_of(window, granularity)
    place = ZoneInfo(window.zone)
    cuts = [window.start, *_cuts(window, unit, place), window.end]
    return [
        Bucket(start, end, _label(start.astimezone(place), unit), end > window.now) for start, end in itertools.pairwise(cuts)
    ]


def _cuts(window: Window, unit: Granularity, place: ZoneInfo) -> Iterator[datetime]:
    """Yield where a new bucket begins inside the window, in order and each once."""
    if unit in (Granularity.MINUTE, Granularity.HOUR):
        width = MINUTE if unit is Granularity.MINUTE else HOUR
        at = _next(window.start, place, width)
        while at < window.end:
            yield at
            at = _next(at, place, width)
        return
    day, last = window.start.astimezone(place).date(), window.start
    while True:
        if unit is Granularity.DAY:
            day += DAY
        elif unit is Granularity.WEEK:
            day += (7 - day.weekday()) * DAY
        else:
            day = _months(day.replace(day=1), 1)
        at = start_of_day(day, place)
        if at >= window.end:
            return
        if at > last:
            yield at
            last = at


def _label(start: datetime, unit: Granularity) -> str:
    if unit is Granularity.WEEK:
        year, week, _ = start.isocalendar()
        return f"{year}-W{week:02}"
    if unit is Granularity.DAY:
        return f"{start:%Y-%m-%d}"
    if unit is Granularity.MONTH:
        return f"{start:%Y-%m}"
    return f"{start:%Y-%m-%dT%H:%M}"


def start_of_day(day: date, place: ZoneInfo) -> datetime:
    """Return the first instant, in UTC, at which the local calendar shows `day` or a later one."""
    midnight = datetime.combine(day, time(), place)
    earlier, later = midnight.astimezone(UTC), midnight.replace(fold=1).astimezone(UTC)
    if later < earlier:  # the clock jumped over midnight: the day begins with the jump
        return _change(later, earlier, place)
    return earlier


def _floor(at: datetime, place: ZoneInfo, width: timedelta) -> datetime:
    """Return where the local hour or minute of an instant began."""
    start = at - _past(at, place, width)
    return start if _offset(start, place) == _offset(at, place) else _change(start, at, place)


def _next(at: datetime, place: ZoneInfo, width: timedelta) -> datetime:
    """Return where the next local hour or minute begins."""
    end = at + width - _past(at, place, width)
    return end if _offset(end, place) == _offset(at, place) else _change(at, end, place)


def _past(at: datetime, place: ZoneInfo, width: timedelta) -> timedelta:
    """Return how much of its local hour or minute has passed at an instant."""
    clock = at.astimezone(place)
    return timedelta(minutes=clock.minute, seconds=clock.second, microseconds=clock.microsecond) % width


def _change(before: datetime, after: datetime, place: ZoneInfo) -> datetime:
    """Return the instant in (before, after] at which the zone's offset changes; zones change at whole seconds."""
    old, low, high = _offset(before, place), int(before.timestamp()), -int(-after.timestamp() // 1)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(datetime.fromtimestamp(middle, UTC), place) == old:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, UTC)


def _offset(at: datetime, place: ZoneInfo) -> timedelta:
    offset = at.astimezone(place).utcoffset()
    assert offset is not None, "a zone has an offset"
    return offset


def _local(at: datetime, place: ZoneInfo) -> datetime:
    """Return what the local clock shows, without a zone, so that differences are the clock's own."""
    return at.astimezone(place).replace(tzinfo=None)


def _months(first: date, count: int) -> date:
    """Return the first of the month `count` months after that of `first`."""
    year, month = divmod(first.year * 12 + first.month - 1 + count, 12)
    return date(year, month + 1, 1)
