"""Windows and buckets: what each range means, in every zone, across every change of its clock."""

import itertools
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from domain.errors import InvalidInput, OutOfRange
from domain.usage.windows import Between, BillingPeriod, Days, Granularity, Range, RelativeRange, buckets, resolve

ZONES = (
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Asia/Kathmandu",  # +5:45
    "Asia/Kolkata",  # +5:30
    "Pacific/Chatham",  # +12:45, +13:45
    "Australia/Lord_Howe",  # the clock moves by half an hour
    "America/Santiago",  # the clock jumps over midnight
    "America/Havana",  # midnight comes twice
    "Africa/Cairo",
    "Asia/Beirut",
    "America/St_Johns",  # moved a minute after midnight until 2011
    "Pacific/Apia",  # left out 30 December 2011
    "Pacific/Kiritimati",
    "Africa/Casablanca",
    "Antarctica/Troll",  # moves by two hours
)
NOW = datetime(2026, 11, 21, 14, 37, 12, 345678, tzinfo=UTC)
zones = st.sampled_from(ZONES)
instants = st.integers(0, 42 * 365 * 86_400 * 1000).map(lambda passed: datetime(1996, 1, 1, tzinfo=UTC) + timedelta(milliseconds=passed))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def days(first: str, last: str) -> Days:
    return Days(date.fromisoformat(first), date.fromisoformat(last))


@pytest.mark.parametrize(
    ("wanted", "start", "end", "label", "count"),
    [
        (RelativeRange.LAST_HOUR, "2026-11-21T13:38", "2026-11-21T14:38", "Last hour", 2),
        (RelativeRange.LAST_24_HOURS, "2026-11-20T15:00", "2026-11-21T15:00", "Last 24 hours", 24),
        (RelativeRange.LAST_7_DAYS, "2026-11-15T00:00", "2026-11-22T00:00", "Last 7 days", 7),
        (RelativeRange.LAST_30_DAYS, "2026-10-23T00:00", "2026-11-22T00:00", "Last 30 days", 30),
        (RelativeRange.LAST_90_DAYS, "2026-08-24T00:00", "2026-11-22T00:00", "Last 90 days", 90),
        (RelativeRange.LAST_12_MONTHS, "2025-12-01T00:00", "2026-12-01T00:00", "Last 12 months", 12),
        (RelativeRange.MONTH_TO_DATE, "2026-11-01T00:00", "2026-11-22T00:00", "Month to date", 21),
        (BillingPeriod.CURRENT, "2026-11-01T00:00", "2026-12-01T00:00", "Billing period 2026-11", 30),
        (BillingPeriod.PREVIOUS, "2026-10-01T00:00", "2026-11-01T00:00", "Billing period 2026-10", 31),
        (days("2026-11-01", "2026-11-07"), "2026-11-01T00:00", "2026-11-08T00:00", "2026-11-01 to 2026-11-07", 7),
        (days("2026-11-01", "2026-11-01"), "2026-11-01T00:00", "2026-11-02T00:00", "2026-11-01", 24),
        (Days(date(2026, 11, 20)), "2026-11-20T00:00", "2026-11-22T00:00", "2026-11-20 to 2026-11-21", 48),
    ],
)
def test_ranges_in_utc(wanted: Range, start: str, end: str, label: str, count: int) -> None:
    """Each range is the documented window, and AUTO cuts it as documented: hours to 48 hours, days to 120 days, months beyond."""
    window = resolve(wanted, "UTC", NOW)
    assert (window.start, window.end, window.label) == (utc(start), utc(end), label)
    cut = buckets(window)
    assert len(cut) == count
    assert [bucket.partial for bucket in cut] == [bucket.end > NOW for bucket in cut]


def test_a_day_series_ends_with_the_current_hour() -> None:
    """LAST_24_HOURS is 24 hourly buckets ending with the current hour, the last of them partial (document 0)."""
    cut = buckets(resolve(RelativeRange.LAST_24_HOURS, "UTC", NOW))
    assert [bucket.label for bucket in cut][:2] == ["2026-11-20T15:00", "2026-11-20T16:00"]
    assert cut[-1].label == "2026-11-21T14:00"
    assert [bucket.partial for bucket in cut] == [False] * 23 + [True]


def test_local_days_are_instants_in_utc() -> None:
    """Midnight in New York is 04:00 or 05:00 UTC; the week with the change has seven days, one of them 25 hours long (F26)."""
    window = resolve(days("2026-10-29", "2026-11-04"), "America/New_York", NOW)
    assert (window.start, window.end) == (utc("2026-10-29T04:00"), utc("2026-11-05T05:00"))
    lengths = [(bucket.end - bucket.start) / timedelta(hours=1) for bucket in buckets(window)]
    assert lengths == [24, 24, 24, 25, 24, 24, 24]
    assert len(buckets(resolve(days("2026-11-01", "2026-11-01"), "America/New_York", NOW), Granularity.HOUR)) == 25
    assert len(buckets(resolve(days("2026-03-08", "2026-03-08"), "America/New_York", NOW), Granularity.HOUR)) == 23


def test_an_hour_is_cut_where_the_clock_moves_by_half_an_hour() -> None:
    """On Lord Howe the day of 24.5 hours has 25 buckets of at most an hour, and hours begin with the local clock's again at once."""
    window = resolve(days("2026-04-05", "2026-04-05"), "Australia/Lord_Howe", NOW)
    cut = buckets(window, Granularity.HOUR)
    assert [bucket.label[11:] for bucket in cut][:5] == ["00:00", "01:00", "01:30", "02:00", "03:00"]
    assert sorted({(bucket.end - bucket.start) / timedelta(minutes=1) for bucket in cut}) == [30, 60]
    assert len(cut) == 25


def test_a_day_that_a_zone_left_out_is_no_bucket() -> None:
    """Samoa went from 29 to 31 December 2011: the week has six days, and the missing day cannot be asked for."""
    cut = buckets(resolve(days("2011-12-26", "2012-01-01"), "Pacific/Apia", NOW), Granularity.DAY)
    assert [bucket.label for bucket in cut] == ["2011-12-26", "2011-12-27", "2011-12-28", "2011-12-29", "2011-12-31", "2012-01-01"]
    with pytest.raises(InvalidInput) as refused:
        resolve(days("2011-12-30", "2011-12-30"), "Pacific/Apia", NOW)
    assert refused.value.path == ("range", "days")


def test_a_day_begins_where_its_midnight_is_left_out() -> None:
    """In Santiago the clock jumps from 24:00 to 01:00: the day begins with the jump, and the one before has its 24 hours."""
    cut = buckets(resolve(days("2026-09-05", "2026-09-06"), "America/Santiago", NOW), Granularity.DAY)
    assert [(bucket.end - bucket.start) / timedelta(hours=1) for bucket in cut] == [24, 23]
    assert [bucket.label for bucket in cut] == ["2026-09-05", "2026-09-06"]


def test_weeks_begin_on_monday_across_a_year() -> None:
    """Weeks are ISO weeks, cut by the window: the last days of 2026 and the first of 2027 are one week."""
    cut = buckets(resolve(days("2026-12-16", "2027-01-06"), "Europe/Berlin", NOW), Granularity.WEEK)
    assert [bucket.label for bucket in cut] == ["2026-W51", "2026-W52", "2026-W53", "2027-W01"]
    assert [(bucket.end - bucket.start).days for bucket in cut] == [5, 7, 7, 3]


def test_months_across_a_leap_day() -> None:
    """February 2028 has 29 days."""
    cut = buckets(resolve(days("2028-01-15", "2028-03-15"), "Asia/Kathmandu", NOW), Granularity.MONTH)
    assert [(bucket.label, (bucket.end - bucket.start).days) for bucket in cut] == [("2028-01", 17), ("2028-02", 29), ("2028-03", 15)]


@pytest.mark.parametrize(
    ("wanted", "zone", "path", "kind"),
    [
        (RelativeRange.LAST_7_DAYS, "Mars/Olympus", ("timezone",), InvalidInput),
        (RelativeRange.LAST_7_DAYS, "../etc/passwd", ("timezone",), InvalidInput),
        (RelativeRange.LAST_7_DAYS, "right/America/New_York", ("timezone",), InvalidInput),
        (RelativeRange.LAST_7_DAYS, "localtime", ("timezone",), InvalidInput),
        (Between(utc("2026-11-02"), utc("2026-11-02")), "UTC", ("range", "between", "end"), InvalidInput),
        (Between(utc("2026-12-02")), "UTC", ("range", "between", "start"), InvalidInput),
        (Between(datetime(2026, 11, 2)), "UTC", ("range", "between"), InvalidInput),  # noqa: DTZ001
        (Between(utc("2026-01-01"), utc("2027-02-06")), "UTC", ("range", "between"), OutOfRange),
        (Between(utc("0001-01-01"), utc("2027-02-06")), "UTC", ("range", "between", "start"), InvalidInput),
        (Between(utc("2026-01-01"), utc("9999-12-31")), "UTC", ("range", "between", "end"), InvalidInput),
        (days("2026-01-02", "2026-01-01"), "UTC", ("range", "days", "last"), InvalidInput),
        (Days(date(2026, 11, 22)), "UTC", ("range", "days", "first"), InvalidInput),
        (days("2026-01-01", "2027-02-05"), "UTC", ("range", "days"), OutOfRange),
        (days("0001-01-01", "0001-01-01"), "UTC", ("range", "days", "first"), InvalidInput),
        (days("2026-01-01", "9999-12-31"), "UTC", ("range", "days", "last"), InvalidInput),
    ],
)
def test_bad_ranges_name_their_field(wanted: Range, zone: str, path: tuple[str, ...], kind: type[InvalidInput]) -> None:
    """A range that cannot be asked for is refused, and the refusal names the field."""
    with pytest.raises(kind) as refused:
        resolve(wanted, zone, NOW)
    assert refused.value.path == path


def test_a_window_has_400_days_at_most() -> None:
    """400 local days can be asked for, in a zone where they are an hour longer too; 401 cannot."""
    for zone in ZONES:
        assert len(buckets(resolve(days("2025-10-01", "2026-11-04"), zone, NOW), Granularity.DAY)) == 400


def test_hours_have_31_days_at_most() -> None:
    """A month can be asked by the hour, October's extra hour included; 32 days cannot. Minutes end at six hours."""
    assert len(buckets(resolve(days("2026-10-01", "2026-10-31"), "Europe/Berlin", NOW), Granularity.HOUR)) == 31 * 24 + 1
    with pytest.raises(OutOfRange) as refused:
        buckets(resolve(days("2026-10-01", "2026-11-01"), "Europe/Berlin", NOW), Granularity.HOUR)
    assert (refused.value.path, refused.value.maximum) == (("granularity",), 31 * 86_400)
    start = utc("2026-11-21T01:00")
    assert len(buckets(resolve(Between(start, start + timedelta(hours=6)), "UTC", NOW), Granularity.MINUTE)) == 360
    with pytest.raises(OutOfRange):
        buckets(resolve(Between(start, start + timedelta(hours=6, seconds=1)), "UTC", NOW), Granularity.MINUTE)


relative: st.SearchStrategy[Range] = st.one_of(st.sampled_from(RelativeRange), st.sampled_from(BillingPeriod))
spans: st.SearchStrategy[Range] = st.builds(lambda start, length: Between(start, start + length), instants, st.timedeltas(timedelta(microseconds=1), timedelta(days=400)))
whole_days: st.SearchStrategy[Range] = st.builds(
    lambda first, count: Days(first, first + timedelta(days=count)), st.dates(date(1996, 1, 1), date(2037, 12, 31)), st.integers(0, 30)
)


@given(zone=zones, now=instants, wanted=st.one_of(relative, spans, whole_days), granularity=st.sampled_from(Granularity))
def test_buckets_tile_their_window(zone: str, now: datetime, wanted: Range, granularity: Granularity) -> None:
    """In every zone, whatever its clock does: buckets cover the window without gap or overlap, in order, and begin on local boundaries (F26)."""
    try:
        window = resolve(wanted, zone, now)
        cut = buckets(window, granularity)
    except InvalidInput:  # too long for its granularity, or a day that the zone left out: shown elsewhere
        reject()
    assert window.start < window.end
    assert (cut[0].start, cut[-1].end) == (window.start, window.end)
    assert all(one.end == two.start for one, two in itertools.pairwise(cut))
    assert all(bucket.start < bucket.end for bucket in cut)
    assert window.previous.end == window.start
    assert window.previous.start < window.previous.end
    place = ZoneInfo(zone)
    width = cut[len(cut) // 2].end - cut[len(cut) // 2].start
    if granularity in (Granularity.HOUR, Granularity.MINUTE):
        assert width <= timedelta(hours=1)
    if granularity is Granularity.DAY:
        labels = [bucket.label for bucket in cut]
        assert labels == sorted(set(labels))
        for bucket in cut[1:]:
            before = (bucket.start - timedelta(seconds=1)).astimezone(place).date()
            assert before != bucket.start.astimezone(place).date()


@given(zone=zones, now=instants)
def test_windows_of_days_are_local_days_that_include_today(zone: str, now: datetime) -> None:
    """LAST_7_DAYS is today and the six local days before it, so `now` is in its last bucket (a day that the zone left out aside)."""
    cut = buckets(resolve(RelativeRange.LAST_7_DAYS, zone, now))
    assert cut[-1].start <= now < cut[-1].end
    assert cut[-1].label == now.astimezone(ZoneInfo(zone)).date().isoformat() or zone == "America/St_Johns"
    assert len(cut) == 7 or (zone == "Pacific/Apia" and len(cut) == 6)


@given(zone=zones, now=instants)
def test_last_24_hours_are_24_buckets_in_every_zone(zone: str, now: datetime) -> None:
    """LAST_24_HOURS has 24 buckets, of which the last is under way, in every zone and on every day."""
    cut = buckets(resolve(RelativeRange.LAST_24_HOURS, zone, now), Granularity.HOUR)
    assert len(cut) == 24
    assert cut[-1].start <= now < cut[-1].end
