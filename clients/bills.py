"""Providers' cost APIs: what they say they billed, day by day, read with an admin key."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import aiohttp

from domain.errors import InvalidInput, Unavailable
from domain.money.bills import TOTAL, BillLine, added, item_of, picos
from domain.outside import before_calling

SECONDS = 60.0
MOST_PAGES = 500
LARGEST_PAGE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Account:
    """A provider's address and the admin key that reads its costs."""

    dialect: str
    url: str
    key: str = field(repr=False)


class Bills:
    """Fulfils `domain.money.bills.Bills`, for the providers that an admin key is configured for."""

    def __init__(self, accounts: Mapping[str, Account]) -> None:
        self._accounts = {name: [account] for name, account in accounts.items()}
        for account in dict.fromkeys(accounts.values()):  # a dialect stands for all its accounts, unless an upstream has its name
            if account.dialect not in accounts:
                self._accounts.setdefault(account.dialect, []).append(account)

    def knows(self, provider: str) -> bool:
        """Tell whether there is a key for a provider's bills."""
        return provider in self._accounts

    async def read(self, provider: str, start: datetime, end: datetime) -> list[BillLine]:
        """Return what a provider billed for the days of UTC from `start` until before `end`.

        Raises InvalidInput for an answer that is none or a key that is refused, Unavailable for a provider that is away.
        """
        lines: list[BillLine] = []
        try:
            for account in self._accounts[provider]:
                ask = _anthropic if account.dialect == "anthropic" else _openai
                lines += [line async for line in ask(account, start, end)]
            return [line for line in added(lines) if line.picousd]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInput(f"The provider's cost API said something else than it documents: {type(error).__name__}.", path=("provider",)) from None


async def _anthropic(account: Account, start: datetime, end: datetime) -> AsyncIterator[BillLine]:
    """`GET /v1/organizations/cost_report` of the Admin API: amounts are decimal strings in cents."""
    query = [("starting_at", _instant(start)), ("ending_at", _instant(end)), ("bucket_width", "1d"), ("group_by[]", "description"), ("limit", "31")]
    headers = {"x-api-key": account.key, "anthropic-version": "2023-06-01"}
    async for bucket in _buckets(f"{account.url}/v1/organizations/cost_report", query, headers):
        day = datetime.fromisoformat(bucket["starting_at"]).astimezone(UTC).date()
        for result in bucket["results"]:
            _check_currency(result["currency"])
            name = result.get("model") or result.get("cost_type") or result.get("description") or TOTAL
            yield BillLine(item_of(name), _inside(day, start, end), picos(str(result["amount"]), per=100))


async def _openai(account: Account, start: datetime, end: datetime) -> AsyncIterator[BillLine]:
    """`GET /v1/organization/costs` of the Administration API: amounts are numbers in dollars."""
    query = [("start_time", str(int(start.timestamp()))), ("end_time", str(int(end.timestamp()))), ("bucket_width", "1d"), ("group_by", "line_item"), ("limit", "180")]
    headers = {"authorization": f"Bearer {account.key}"}
    async for bucket in _buckets(f"{account.url}/v1/organization/costs", query, headers):
        day = datetime.fromtimestamp(int(bucket["start_time"]), UTC).date()
        for result in bucket["results"]:
            _check_currency(result["amount"]["currency"])
            yield BillLine(item_of(result.get("line_item") or TOTAL), _inside(day, start, end), picos(Decimal(result["amount"]["value"])))


async def _buckets(url: str, query: list[tuple[str, str]], headers: Mapping[str, str]) -> AsyncIterator[Any]:
    before_calling("a provider's cost API")
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    page: str | None = None
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session:
        for _ in range(MOST_PAGES):
            body = await _page(session, url, query + ([("page", page)] if page else []), headers)
            for bucket in body["data"]:
                yield bucket
            if not body.get("has_more"):
                return
            page = body["next_page"]
    raise InvalidInput(f"The provider's bill goes on after {MOST_PAGES} pages.", path=("range",))


async def _page(session: aiohttp.ClientSession, url: str, query: list[tuple[str, str]], headers: Mapping[str, str]) -> Any:
    try:
        async with session.get(url, params=query, headers={**headers, "user-agent": "Tallygate"}, allow_redirects=False) as answer:
            if answer.status == 429 or answer.status >= 500:
                raise Unavailable
            if answer.status != 200:
                raise InvalidInput(f"The provider's cost API answered {answer.status}: look at the admin key and the period.", path=("provider",))
            read = bytearray()
            async for chunk in answer.content.iter_chunked(64 * 1024):
                read += chunk
                if len(read) > LARGEST_PAGE_BYTES:
                    raise InvalidInput("The provider's cost API does not stop talking.", path=("provider",))
    except (aiohttp.ClientError, TimeoutError, OSError):
        raise Unavailable from None
    return json.loads(bytes(read), parse_float=Decimal)


def _check_currency(currency: str) -> None:
    if currency.lower() != "usd":
        raise InvalidInput(f"The provider bills in {currency[:8]!r}: only USD can be compared.", path=("provider",))


def _inside(day: date, start: datetime, end: datetime) -> date:
    if not start.astimezone(UTC).date() <= day <= (end - timedelta(microseconds=1)).astimezone(UTC).date():
        raise InvalidInput(f"The provider answered for {day}, which is outside of the period.", path=("range",))
    return day


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
