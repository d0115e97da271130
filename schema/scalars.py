"""The scalars of the contract, strict in both directions."""

import datetime
import decimal
import functools
import re
import zoneinfo
from collections.abc import Callable
from typing import Any, Final, NewType
from urllib.parse import urlsplit

import strawberry
from graphql import GraphQLError, ValueNode
from graphql.utilities import value_from_ast_untyped
from strawberry.types.scalar import ScalarDefinition

SafeInt = NewType("SafeInt", int)
MicroUsd = NewType("MicroUsd", int)
TimeZone = NewType("TimeZone", str)
URL = NewType("URL", str)
JSON = NewType("JSON", object)
EmailAddress = NewType("EmailAddress", str)
Secret = NewType("Secret", str)
Window = NewType("Window", str)
Slug = NewType("Slug", str)

LARGEST_SAFE_INTEGER: Final = 2**53 - 1
INSTANT = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
DECIMAL = re.compile(r"-?\d{1,18}(?:\.\d{1,18})?", re.ASCII)
SPAN = re.compile(r"[1-9]\d{0,4}[mhd]|day|week|month|billing_period|lifetime|concurrent", re.ASCII)
HANDLE = re.compile(r"(?=.{3,50}\Z)[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
ADDRESS = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*",
    re.ASCII,
)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise GraphQLError(f"{what} is written as a string.")
    return value


def parse_integer(value: object) -> int:
    """The integer itself. Raises GraphQLError for a boolean, a fraction, a string, or what lies outside of plus or minus 2^53-1.

    A float that is whole is taken as the integer it is, because JSON has one kind of number.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise GraphQLError("An integer is needed, as a JSON number.")
    if abs(value) > LARGEST_SAFE_INTEGER:
        raise GraphQLError("The integer lies outside of -(2^53-1) to 2^53-1.")
    return value


def parse_instant(value: object) -> datetime.datetime:
    """An aware UTC instant from RFC 3339 text, of any offset. Raises GraphQLError when the zone is missing or the text is no instant."""
    match = INSTANT.fullmatch(_text(value, "An instant"))
    if match is None:
        raise GraphQLError("An instant is written as in 2026-11-21T20:48:00.123Z.")
    *parts, fraction, zone = match.groups()
    offset = "+00:00" if zone in "Zz" else zone
    try:
        year, month, day, hour, minute, second = (int(part) for part in parts)
        local = datetime.datetime(year, month, day, hour, minute, second, int((fraction or "0")[:6].ljust(6, "0")), datetime.UTC)
        hours, minutes = int(offset[1:3]), int(offset[4:6])
        if hours > 23 or minutes > 59:
            raise ValueError("offset")
        shift = datetime.timedelta(hours=hours, minutes=minutes)
        return local - shift if offset[0] == "+" else local + shift
    except (ValueError, OverflowError):
        raise GraphQLError("There is no such instant.") from None


def print_instant(value: object) -> str:
    """RFC 3339 in UTC with milliseconds, cut and not rounded, so that no answer lies in the future."""
    if not isinstance(value, datetime.datetime) or value.tzinfo is None:
        raise GraphQLError("DateTime cannot represent a value without a zone.")
    return value.astimezone(datetime.UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def parse_day(value: object) -> datetime.date:
    """A calendar day from `YYYY-MM-DD`. Raises GraphQLError for anything else."""
    text = _text(value, "A day")
    try:
        if DAY.fullmatch(text):
            return datetime.date.fromisoformat(text)
    except ValueError:
        pass
    raise GraphQLError("A day is written as in 2026-11-21.")


def print_day(value: object) -> str:
    """`YYYY-MM-DD`."""
    if not isinstance(value, datetime.date) or isinstance(value, datetime.datetime):
        raise GraphQLError("Date cannot represent anything but a day.")
    return value.isoformat()


@functools.cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def parse_zone(value: object) -> str:
    """An IANA zone name, echoed as given. Raises GraphQLError for a name that the zone database does not hold."""
    name = _text(value, "A time zone")
    if name not in _zones():
        raise GraphQLError("The time zone is not known; use an IANA name such as Europe/Amsterdam.")
    return name


def parse_decimal(value: object) -> decimal.Decimal:
    """An exact decimal from a string without exponent, or from an integer. Raises GraphQLError for floats and booleans."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_SAFE_INTEGER:
        return decimal.Decimal(value)
    if isinstance(value, str) and DECIMAL.fullmatch(value):
        return decimal.Decimal(value)
    raise GraphQLError('A decimal is written as a string without exponent, as in "12.50".')


def print_decimal(value: object) -> str:
    """Plain digits, without exponent; minus zero is zero."""
    if not isinstance(value, decimal.Decimal) or not value.is_finite():
        raise GraphQLError("Decimal cannot represent a value that is no finite decimal.")
    return format(value if value else abs(value), "f")


def parse_address(value: object) -> str:
    """An absolute http or https address. Raises GraphQLError for anything else, user names and passwords included."""
    text = _text(value, "An address")
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound or len(text) > 2048 or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise GraphQLError("An absolute http or https address is needed.")
    return text


def parse_email(value: object) -> str:
    """An address in lower case. Raises GraphQLError when it is none, by the rule of HTML's e-mail field."""
    text = _text(value, "An e-mail address")
    if len(text) > 254 or not ADDRESS.fullmatch(text):
        raise GraphQLError("That is no e-mail address.")
    return text.lower()


def parse_secret(value: object) -> str:
    """The secret as given, never repeated in an error."""
    return _text(value, "A secret")


def _matching(pattern: re.Pattern[str], advice: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        text = _text(value, "It")
        if not pattern.fullmatch(text):
            raise GraphQLError(advice)
        return text

    return parse


parse_window = _matching(SPAN, "A window is written as in 1m, 5h, 24h, 7d, or is day, week, month, billing_period, lifetime or concurrent.")
parse_slug = _matching(HANDLE, "A handle is 3 to 50 lower-case letters, digits and single hyphens inside.")


def parse_json(value: object) -> object:
    """Any JSON value, as it is."""
    return value


def _same(value: Any) -> Any:
    return value


def _literal(parse: Callable[[object], Any]) -> Callable[..., Any]:
    # graphql-core's own default turns every literal into a Python value first; written out here because strawberry hides that default.
    def parse_literal(node: ValueNode, variables: dict[str, Any] | None = None) -> Any:
        return parse(value_from_ast_untyped(node, variables))

    return parse_literal


def _scalar(
    name: str,
    description: str,
    parse: Callable[[object], Any],
    serialize: Callable[[Any], Any] = _same,
    specified_by_url: str | None = None,
) -> ScalarDefinition:
    return strawberry.scalar(
        name=name,
        description=description,
        specified_by_url=specified_by_url,
        serialize=serialize,
        parse_value=parse,
        parse_literal=_literal(parse),
    )


SCALARS: Final[dict[object, ScalarDefinition]] = {
    datetime.datetime: _scalar(
        "DateTime",
        "An instant, RFC 3339, always UTC with a `Z`: `2026-11-21T20:48:00.123Z`.",
        parse_instant,
        print_instant,
        "https://scalars.graphql.org/andimarek/date-time.html",
    ),
    datetime.date: _scalar(
        "Date",
        "A calendar day without a time or zone, `2026-11-21`. It is meant in the TimeZone that the enclosing report names.",
        parse_day,
        print_day,
        "https://scalars.graphql.org/andimarek/local-date.html",
    ),
    TimeZone: _scalar(
        "TimeZone",
        "An IANA time zone name such as `America/New_York`, or `UTC`. Aliases are accepted and echoed as given.",
        parse_zone,
        specified_by_url="https://www.iana.org/time-zones",
    ),
    SafeInt: _scalar(
        "SafeInt",
        "An integer from −(2^53−1) to 2^53−1, as a JSON number: safe in every client, large enough for token counts.",
        parse_integer,
        parse_integer,
        "https://the-guild.dev/graphql/scalars/docs/scalars/safe-int",
    ),
    MicroUsd: _scalar(
        "MicroUsd",
        "Millionths of a US dollar, as a JSON integer with the range of SafeInt. 1 USD is 1000000.",
        parse_integer,
        parse_integer,
    ),
    decimal.Decimal: _scalar(
        "Decimal",
        'An exact decimal number as a string, without exponent: `"0.000075"`. As input an integer literal is accepted too.',
        parse_decimal,
        print_decimal,
    ),
    URL: _scalar("URL", "An absolute URL.", parse_address, specified_by_url="https://url.spec.whatwg.org/"),
    JSON: _scalar(
        "JSON",
        "Any JSON value. Used only where the shape is not ours to type here, such as an app manifest.",
        parse_json,
        specified_by_url="https://www.rfc-editor.org/rfc/rfc8259",
    ),
    EmailAddress: _scalar(
        "EmailAddress",
        "An e-mail address, compared without regard to case.",
        parse_email,
        specified_by_url="https://html.spec.whatwg.org/multipage/input.html#valid-e-mail-address",
    ),
    Secret: _scalar(
        "Secret",
        "A secret in clear text, returned once and never stored in clear. Servers redact it from logs and traces; clients should too.",
        parse_secret,
    ),
    Window: _scalar(
        "Window",
        "A stretch over which something is counted, written as in tiers and REST. `1m`, `5h`, `24h` and `7d` open with the first call after the last\n"
        "one closed, and last their length; `day`, `week` and `month` follow the calendar in the workspace's zone; `billing_period`, `lifetime` and\n"
        "`concurrent` (at any one time) mean what they say.",
        parse_window,
    ),
    Slug: _scalar(
        "Slug",
        "A lowercase app handle of 3 to 50 letters, digits and single hyphens inside, unique over the whole service.",
        parse_slug,
    ),
}
