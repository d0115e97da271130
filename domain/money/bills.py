"""What a provider bills: read from the CSV files that providers let one download, or from their cost APIs; line by line, exactly, or refused by line."""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Final, Protocol

from domain.errors import InvalidInput
from domain.money.amounts import MICRO, PICO_PER_MICRO

PICO: Final = MICRO * PICO_PER_MICRO
LARGEST_BILL_BYTES = 10 * 1024 * 1024
MOST_LINES = 20_000
"""How many items, each on each of its days, a bill may come to."""
LONGEST_ITEM = 200
LARGEST_LINE_USD = 1_000_000
LARGEST_SUM_PICOUSD = 9 * 10**18
TOTAL = "total"
"""The item of a bill that names none."""
PATH = ("bill",)
_SNAPSHOT = re.compile(r"[-@](?:\d{4}-?\d{2}-?\d{2}|latest)$")
# The first of these that a file's head has counts. `cost_usd` and `usage_date_utc` are Anthropic's, `amount_value` and `start_time_iso` OpenAI's.
_AMOUNTS = ("cost_usd", "amount_value", "amount_usd", "billed_usd", "cost", "amount", "usd")
_ITEMS = ("model", "line_item", "item", "description", "sku", "service")
_BESIDES = ("cost_type", "usage_type", "description")
"""What names a line whose item is empty, such as a web search's."""
_DAYS = ("usage_date_utc", "usage_date", "date", "day", "start_time_iso", "start_time", "starting_at")
_CURRENCIES = ("amount_currency", "currency")


@dataclass(frozen=True, slots=True)
class BillLine:
    """What an item cost on a day of UTC, picodollars; below zero for a credit. `used_on` is None where the bill does not split by day."""

    item: str
    used_on: date | None
    picousd: int


class Bills(Protocol):
    """Providers' own cost APIs, as far as the installation has keys for them."""

    def knows(self, provider: str) -> bool:
        """Tell whether there is a key for a provider's bills."""

    async def read(self, provider: str, start: datetime, end: datetime) -> list[BillLine]:
        """Return what a provider billed for whole days of UTC; raises InvalidInput for what cannot be read, Unavailable for a provider that is away."""


def canonical(name: str) -> str:
    """Return a model's name as bills and attempts share it: providers bill snapshots, under names with or without their dates."""
    return _SNAPSHOT.sub("", re.sub(r"[ ._]+", "-", name.strip().lower()))


def item_of(name: str) -> str:
    """Return what a line is for without its kind of token: OpenAI's `gpt-5.5-2026-08-07, cached input` is gpt-5.5's."""
    return name.partition(", ")[0].strip()[:LONGEST_ITEM] or TOTAL


def added(lines: Iterable[BillLine]) -> list[BillLine]:
    """Return one line for each item and day; raises InvalidInput for too many."""
    sums: dict[tuple[str, date | None], int] = {}
    names: dict[tuple[str, date | None], str] = {}
    for line in lines:
        key = (canonical(line.item), line.used_on)
        names.setdefault(key, line.item)
        sums[key] = sums.get(key, 0) + line.picousd
        if abs(sums[key]) > LARGEST_SUM_PICOUSD:
            raise InvalidInput(f"{line.item} comes to more than can be booked.", path=PATH)
        if len(sums) > MOST_LINES:
            raise InvalidInput(f"A bill has at most {MOST_LINES} items and days.", path=PATH)
    return [BillLine(names[key], key[1], picousd) for key, picousd in sums.items()]


def parse(text: str, start: datetime, end: datetime) -> list[BillLine]:
    """Return the lines of a bill in CSV, added up by item and day; raises InvalidInput that names the line.

    Its head names the columns: an amount in dollars, and, where there are any, an item, a day and a currency.
    """
    if len(text.encode()) > LARGEST_BILL_BYTES:
        raise InvalidInput(f"A bill has at most {LARGEST_BILL_BYTES // 1024 // 1024} MB.", path=PATH)
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        head = [name.strip().lower().replace(" ", "_") for name in next(rows, [])]
        columns = _Columns.of(head)
        lines = added(columns.line(row, rows.line_num, start, end) for row in rows if any(cell.strip() for cell in row) and not columns.nothing(row))
    except csv.Error as error:
        raise InvalidInput(f"Line {rows.line_num} of the bill is no CSV: {error}.", path=PATH) from None
    if not lines:
        raise InvalidInput("The bill has no line below its head.", path=PATH)
    return lines


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where a file has what."""

    width: int
    amount: int
    item: int | None
    besides: tuple[int, ...]
    day: int | None
    currency: int | None

    @classmethod
    def of(cls, head: list[str]) -> "_Columns":
        """Find the columns; raises InvalidInput."""
        places: Mapping[str, int] = {name: place for place, name in reversed(list(enumerate(head)))}

        def first(names: tuple[str, ...]) -> int | None:
            return next((places[name] for name in names if name in places), None)

        amount = first(_AMOUNTS)
        if amount is None:
            raise InvalidInput(f"Line 1 of the bill names no column for the amount: one of {', '.join(_AMOUNTS)}.", path=PATH)
        return cls(len(head), amount, first(_ITEMS), tuple(places[name] for name in _BESIDES if name in places), first(_DAYS), first(_CURRENCIES))

    def nothing(self, row: list[str]) -> bool:
        """Tell whether a row is that of a day on which nothing was billed, as OpenAI writes them: times, and neither an amount, a currency nor an item."""
        places = (self.amount, self.currency, self.item, *self.besides)
        return self.day is not None and len(row) == self.width and not any(row[place].strip() for place in places if place is not None)

    def line(self, row: list[str], number: int, start: datetime, end: datetime) -> BillLine:
        """Read a row; raises InvalidInput that names its line."""

        def refused(why: str) -> InvalidInput:
            return InvalidInput(f"Line {number} of the bill {why}.", path=PATH)

        if len(row) != self.width:
            raise refused(f"has {len(row)} cells, not {self.width}")
        if self.currency is not None and row[self.currency].strip().lower() not in ("usd", ""):
            raise refused(f"is in {row[self.currency].strip()[:8]!r}: only USD can be compared")
        used_on = None
        if self.day is not None:
            used_on = _day(row[self.day].strip())
            if used_on is None:
                raise refused(f"has no day in {row[self.day].strip()[:40]!r}")
            if not start.astimezone(UTC).date() <= used_on <= (end - timedelta(microseconds=1)).astimezone(UTC).date():
                raise refused(f"is of {used_on}, which is outside of the period")
        try:
            picousd = picos(row[self.amount])
        except ValueError as error:
            raise refused(f"has no amount in {row[self.amount].strip()[:40]!r}: {error}") from None
        named = [row[place].strip() for place in ((self.item,) if self.item is not None else ()) + self.besides]
        item = item_of(next((name for name in named if name), TOTAL))
        if not item.isprintable():
            raise refused("names its item with characters that cannot be printed")
        return BillLine(item, used_on, picousd)


def picos(usd: str | Decimal, *, per: int = 1) -> int:
    """Return dollars, or `per`-ths of one, as picodollars, rounded half to even; providers write more decimals than that. Raises ValueError."""
    text = usd.strip().removeprefix("$") if isinstance(usd, str) else usd
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError("not a number") from None
    if not value.is_finite() or abs(value) > LARGEST_LINE_USD * per:
        raise ValueError(f"not within {LARGEST_LINE_USD} dollars")
    return int((value * PICO / per).to_integral_value(ROUND_HALF_EVEN))


def _day(text: str) -> date | None:
    try:
        if text.isascii() and text.isdecimal() and len(text) in (9, 10):  # OpenAI's start_time
            return datetime.fromtimestamp(int(text), UTC).date()
        if len(text) == 10:
            return date.fromisoformat(text)
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).date()
