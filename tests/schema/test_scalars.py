"""Scalars, strict in both directions: literals and variables alike, with nothing that only looks right."""

import datetime
import decimal
from typing import Any

import pytest
from graphql import GraphQLError, GraphQLScalarType, parse_value
from hypothesis import given
from hypothesis import strategies as st

from schema.scalars import parse_slug
from tests.schema.serving import served_schema

LARGEST = 2**53 - 1


def scalar(name: str) -> GraphQLScalarType:
    """A scalar of the served schema."""
    found = served_schema()._schema.type_map[name]
    assert isinstance(found, GraphQLScalarType)
    return found


def refuses(name: str, value: Any) -> bool:
    """Whether a variable of this value is refused, with a reason."""
    try:
        scalar(name).parse_value(value)
    except GraphQLError as error:
        return bool(error.message)
    return False


@pytest.mark.parametrize("name", ["SafeInt", "MicroUsd"])
@pytest.mark.parametrize("value", [0, 1, -1, LARGEST, -LARGEST, 5.0])
def test_a_safe_integer_is_itself(name: str, value: Any) -> None:
    """Every integer that each client can hold passes both ways, and JSON's 5.0 is 5."""
    assert scalar(name).parse_value(value) == value
    assert type(scalar(name).parse_value(value)) is int
    assert scalar(name).serialize(int(value)) == value


@pytest.mark.parametrize("name", ["SafeInt", "MicroUsd"])
@pytest.mark.parametrize("value", [True, False, "1", 1.5, LARGEST + 1, -LARGEST - 1, 1e300, None, [1], {}, float("nan"), float("inf")])
def test_what_only_looks_like_a_safe_integer_is_refused(name: str, value: Any) -> None:
    """A boolean is no number, a string is none, and what a client would round is refused."""
    assert refuses(name, value)


@pytest.mark.parametrize(
    "literal", ["true", '"1"', "1.5", str(LARGEST + 1), str(-LARGEST - 1), "9" * 400, "RED", "[1]", "{ a: 1 }", "null"]
)
def test_literals_are_as_strict_as_variables(literal: str) -> None:
    """What a document writes is held to the same rule as what a variable carries."""
    with pytest.raises((GraphQLError, ValueError)):
        scalar("SafeInt").parse_literal(parse_value(literal))


def test_an_integer_beyond_the_range_is_never_answered() -> None:
    """Better an error than a number that a client reads as another."""
    with pytest.raises(GraphQLError):
        scalar("SafeInt").serialize(LARGEST + 1)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-21T20:48:00Z", (2026, 11, 21, 20, 48, 0, 0)),
        ("2026-11-21T20:48:00.123Z", (2026, 11, 21, 20, 48, 0, 123_000)),
        ("2026-11-21T20:48:00.123456789Z", (2026, 11, 21, 20, 48, 0, 123_456)),
        ("2026-11-21T20:48:00+05:45", (2026, 11, 21, 15, 3, 0, 0)),
        ("2026-11-21t20:48:00-08:00", (2026, 11, 22, 4, 48, 0, 0)),
    ],
)
def test_an_instant_of_any_offset_is_understood_as_utc(text: str, instant: tuple[int, ...]) -> None:
    """RFC 3339 in, an aware UTC instant inside."""
    year, month, day, hour, minute, second, microsecond = instant
    assert scalar("DateTime").parse_value(text) == datetime.datetime(year, month, day, hour, minute, second, microsecond, datetime.UTC)


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-21T20:48:00",
        "2026-11-21 20:48:00Z",
        "2026-11-21",
        "2026-02-30T00:00:00Z",
        "2026-11-21T24:00:00Z",
        "2026-11-21T20:48:00+25:00",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "２０２６-11-21T20:48:00Z",
        "20261121T204800Z",
        "",
        0,
        1.5,
        True,
        None,
    ],
)
def test_what_is_no_instant_is_refused(value: Any) -> None:
    """An instant without a zone is none, and neither is a number."""
    assert refuses("DateTime", value)


def test_instants_are_told_in_utc_with_milliseconds_cut() -> None:
    """Never rounded up into the future, always a Z."""
    zone = datetime.timezone(datetime.timedelta(hours=1))
    assert scalar("DateTime").serialize(datetime.datetime(2026, 11, 21, 21, 48, 0, 123_999, tzinfo=zone)) == "2026-11-21T20:48:00.123Z"
    with pytest.raises(GraphQLError):
        scalar("DateTime").serialize(datetime.datetime(2026, 11, 21))  # noqa: DTZ001  # the fault under test


@given(st.datetimes(min_value=datetime.datetime(1971, 1, 1), max_value=datetime.datetime(9000, 1, 1)))  # noqa: DTZ001  # hypothesis adds the zone
def test_an_instant_comes_back_as_it_went(naive: datetime.datetime) -> None:
    """What is printed parses to the same millisecond."""
    told = naive.replace(tzinfo=datetime.UTC)
    assert scalar("DateTime").parse_value(scalar("DateTime").serialize(told)) == told.replace(microsecond=told.microsecond // 1000 * 1000)


@pytest.mark.parametrize(("value", "number"), [("12.50", "12.50"), ("-0.000075", "-0.000075"), (3, "3"), ("0", "0"), ("-0", "0")])
def test_a_decimal_is_exact(value: Any, number: str) -> None:
    """Digits in, the same digits out; minus zero is zero."""
    parsed = scalar("Decimal").parse_value(value)
    assert isinstance(parsed, decimal.Decimal)
    assert scalar("Decimal").serialize(parsed) == number


@pytest.mark.parametrize("value", [1.5, True, "1e3", "NaN", "Infinity", "1,5", "", " 1", "1.", ".5", "0x1", "٣", "1" * 19, None])
def test_what_is_no_exact_decimal_is_refused(value: Any) -> None:
    """A float has been rounded already, and an exponent hides digits."""
    assert refuses("Decimal", value)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("Date", ["2026-11-21", "2024-02-29"], ["2026-02-29", "2026-1-1", "20261121", "2026-11-21T00:00:00Z", 5, None]),
        (
            "TimeZone",
            ["UTC", "America/New_York", "Asia/Kathmandu", "US/Pacific"],
            ["Mars/Olympus", "", "America", "../etc/passwd", "utc ", 1],
        ),
        (
            "Window",
            ["1m", "5h", "24h", "7d", "day", "week", "month", "billing_period", "lifetime", "concurrent"],
            ["0h", "5", "h", "1w", "-1h", "Day", "1.5h", 5],
        ),
        ("EmailAddress", ["ada@example.com", "a+b@x.test"], ["ada", "@x", "a@", "a b@x.test", "a@x..y", "a@-x", "ä@x.test", 1]),
        (
            "URL",
            ["https://example.com/x?y#z", "http://localhost:8000"],
            ["example.com", "//x", "javascript:alert(1)", "https://", "https://u:p@x.test", "https://x y", "ftp://x", 1],
        ),
        ("Secret", ["anything at all"], [1, None, True]),
    ],
)
def test_texts_with_a_shape_keep_it(name: str, good: list[Any], bad: list[Any]) -> None:
    """Each shape takes what it names, and nothing that is near it."""
    assert [value for value in good if refuses(name, value)] == []
    assert [value for value in bad if not refuses(name, value)] == []


@pytest.mark.parametrize("handle", ["abc", "my-app", "a1-b2", "a" * 50])
def test_a_handle_is_lower_case_letters_digits_and_single_hyphens(handle: str) -> None:
    """The scalar of app handles, which no served field has yet."""
    assert parse_slug(handle) == handle


@pytest.mark.parametrize("handle", ["ab", "a" * 51, "-ab", "ab-", "a--b", "Abc", "a_b", "é-é", "abc\n", 1])
def test_what_is_no_handle_is_refused(handle: Any) -> None:
    """Nothing near the rule passes."""
    with pytest.raises(GraphQLError):
        parse_slug(handle)


def test_an_address_is_compared_without_regard_to_case() -> None:
    """It is kept in lower case."""
    assert scalar("EmailAddress").parse_value("Ada@Example.COM") == "ada@example.com"
