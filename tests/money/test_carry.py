"""Whole microdollars with one carry: exact for ever, whatever the order; synchronous, because Hypothesis runs it (see tests/money/own_books.py)."""

import asyncio
import random
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInput
from domain.money.amounts import parse_decimal, picos_as_usd, usd
from domain.money.catalogue import make_row
from models import database
from models.enums import Bucket
from tests.money.own_books import OwnBooks
from tests.serving.openings import calls, ending, listed, opening, used
from tests.support.world import tenant

FEW = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
CREDIT = 10**9


@FEW
@given(amounts=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), min_size=1, max_size=20), seed=st.randoms(use_true_random=False))
def test_the_sum_is_exact_in_any_order(own: OwnBooks, amounts: list[tuple[int, int]], seed: random.Random) -> None:
    """M5: the same calls settled in two orders cost the same microdollars in all and carry the same picodollars, and no call is off by a whole one."""
    picos = [cached * 10_000 + output * 500_000 for cached, output in amounts]

    async def settle(order: list[int], batch: int) -> tuple[int, int]:
        mine, price, process = await tenant(credit_microusd=CREDIT), listed(own.book, "claude-haiku-5-5"), calls(own.book, batch=batch)
        admitted = await asyncio.gather(*(process.admit(opening(mine.secret, price, input_tokens=3000, max_output=3000)) for _ in order))
        work = [process.settle(ending(one, price, used(0, amounts[n][1], cache_read=amounts[n][0]))) for one, n in zip(admitted, order, strict=True)]
        charges = [settled.charge_microusd for settled in await asyncio.gather(*work)]
        for charge, n in zip(charges, order, strict=True):
            assert picos[n] // 10**6 <= charge <= picos[n] // 10**6 + 1
        balance = await mine.balance()
        assert CREDIT - balance.balance == sum(charges)
        shown = await database.fetch_value("SELECT sum(charge_microusd) FROM usage_event WHERE workspace_id = $1", mine.workspace_id)
        assert shown == sum(charges)
        return sum(charges), balance.carry_picousd

    async def work() -> None:
        order = list(range(len(amounts)))
        first = await settle(order, 500)
        seed.shuffle(order)
        assert await settle(order, seed.choice([1, 3, 500])) == first == divmod(sum(picos), 10**6)
        await own.sound()

    own.run(work())


@given(price=st.decimals(min_value=0, max_value=1000, places=6), tokens=st.integers(0, 2_000_000))
def test_a_price_of_six_decimals_is_a_whole_number_of_picodollars(price: Decimal, tokens: int) -> None:
    """Dollars for a million with up to six decimals are exact: no token is rounded."""
    row = make_row(Bucket.OUTPUT, str(price))
    assert Fraction(row.picousd * tokens, 10**12) == Fraction(price) * tokens / 10**6


@pytest.mark.parametrize("text", ["-1", "NaN", "inf", "-Infinity", "1e30", "0.0000001", "", "one", "1_000_000_000_000", "9" * 50])
def test_an_absurd_price_is_refused(text: str) -> None:
    """F14: negative, not finite, sentinel-like or inexact prices never reach the catalogue."""
    with pytest.raises(InvalidInput):
        make_row(Bucket.OUTPUT, text)


@given(st.integers(-(2**53), 2**53))
def test_dollars_in_decimal_lose_nothing(microusd: int) -> None:
    """An amount written as dollars reads back as the same microdollars, and so do picodollars."""
    assert parse_decimal(usd(microusd), places=6) == microusd
    assert parse_decimal(picos_as_usd(microusd), places=12) == microusd


@pytest.mark.parametrize(
    ("microusd", "text"), [(0, "0.00"), (5_000_000, "5.00"), (12_345_678, "12.345678"), (-1, "-0.000001"), (1_500_000, "1.50"), (10, "0.00001")]
)
def test_dollars_are_written_plainly(microusd: int, text: str) -> None:
    """Two decimals at least, no zeros behind them, no exponent."""
    assert usd(microusd) == text
