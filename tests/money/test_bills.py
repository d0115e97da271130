"""Providers' bills: their real files are read exactly, and a line that cannot be is named."""

import contextlib
from datetime import UTC, date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInput
from domain.money import bills
from domain.money.bills import LARGEST_BILL_BYTES, BillLine, canonical, parse
from domain.money.reconciliations import Compared, coverage, micros, side_by_side

START, END = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
FIRST, SECOND = date(2026, 10, 1), date(2026, 10, 2)
# The heads as both consoles write them, the names of models and the day without usage too.
ANTHROPIC = """usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd,cost_type,inference_geo,speed,api_key_id,api_key_status
2026-10-01,Claude Opus 5.5,Default,prod,message,≤ 200k,input_no_cache,1.25,1.25,token,global,standard,apikey_01,active
2026-10-01,Claude Opus 5.5,Default,prod,message,≤ 200k,output,0.000001250001,0.01,token,not_available,,apikey_01,active
2026-10-02,,Default,prod,web_search,,,0.03,0.03,web_search,,,apikey_02,archived
"""
OPENAI_HEAD = (
    "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,quantity,quantity_unit,line_item,user_id,api_key_id,project_id,"
    "organization_id,project_name,organization_name,user_email,api_source\n"
)
OPENAI = f"""{OPENAI_HEAD}1790812800,1790899200,2026-10-01T00:00:00,2026-10-02T00:00:00,0.0600000000000000012,usd,1000,tokens,"gpt-5.5-2026-08-07, input",,,,,P,O,,
1790812800,1790899200,2026-10-01T00:00:00+00:00,2026-10-02T00:00:00+00:00,1.5e-05,usd,10,tokens,"gpt-5.5-2026-08-07, cached input",,,proj_1,org,P,O,,
1790899200,1790985600,2026-10-02T00:00:00+00:00,2026-10-03T00:00:00+00:00,-0.01,usd,,,credits,,,proj_2,org,P,O,,
1790985600,1791072000,2026-10-03T00:00:00+00:00,2026-10-04T00:00:00+00:00,,,,,,,,,,,,,
"""
UNGROUPED = f"{OPENAI_HEAD}1790812800,1790899200,2026-10-01T00:00:00,2026-10-02T00:00:00,0.003835980000000000000000000000,usd,,,,,,,org,,O,,\n"


def test_the_files_of_two_providers_are_read() -> None:
    """Anthropic's and OpenAI's columns, by day and model, added up over kinds of tokens, to the picodollar."""
    assert parse(ANTHROPIC, START, END) == [
        BillLine("Claude Opus 5.5", FIRST, 1_250_001_250_001),
        BillLine("web_search", SECOND, 30_000_000_000),
    ]
    assert parse(OPENAI, START, END) == [BillLine("gpt-5.5-2026-08-07", FIRST, 60_015_000_000), BillLine("credits", SECOND, -10_000_000_000)]
    assert parse(UNGROUPED, START, END) == [BillLine("total", FIRST, 3_835_980_000)]
    assert parse("\ufeffModel,Cost USD\r\nm,$3\r\n\r\n", START, END) == [BillLine("m", None, 3 * 10**12)]
    assert parse("amount\n12.5\n", START, END) == [BillLine("total", None, 12_500_000_000_000)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Line 1 of the bill names no column for the amount"),
        ("model,tokens\nm,3\n", "Line 1 of the bill names no column for the amount"),
        ("model,cost_usd\n", "no line below its head"),
        ("model,cost_usd\nm,\n", "Line 2 of the bill has no amount in ''"),
        ("date,model,cost_usd\n2026-10-01,m,\n", "Line 2 of the bill has no amount in ''"),
        ("model,cost_usd\nm,1\nm,one\n", "Line 3 of the bill has no amount in 'one': not a number"),
        ("model,cost_usd\nm,NaN\n", "Line 2 of the bill has no amount in 'NaN'"),
        ("model,cost_usd\nm,1e400\n", "Line 2 of the bill has no amount"),
        ("model,cost_usd\nm,1000001\n", "not within 1000000 dollars"),
        ("model,cost_usd\nm,1,2\n", "Line 2 of the bill has 3 cells, not 2"),
        ('model,cost_usd\n"m,1\n', "of the bill is no CSV"),
        ("model,cost_usd,currency\nm,1,EUR\n", "Line 2 of the bill is in 'EUR': only USD can be compared"),
        ("model,cost_usd,date\nm,1,2026-10-31\nm,1,2026-11-01\n", "Line 3 of the bill is of 2026-11-01, which is outside of the period"),
        ("model,cost_usd,date\nm,1,yesterday\n", "Line 2 of the bill has no day in 'yesterday'"),
        ("model,cost_usd\nm\x07m,1\n", "Line 2 of the bill names its item with characters that cannot be printed"),
        ("model,cost_usd\n" + "".join(f"m{number},1\n" for number in range(20_001)), "at most 20000 items"),
        ("a" * (LARGEST_BILL_BYTES + 1), "at most 10 MB"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(text: str, why: str) -> None:
    """Bad amounts, days, currencies and shapes are refused by line, and so is what is too much."""
    with pytest.raises(InvalidInput) as refused:
        parse(text, START, END)
    assert why in refused.value.message
    assert refused.value.path == ("bill",)


@settings(max_examples=40)
@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Whatever is sent is read, or refused."""
    for bill in (text, "model,cost_usd\n" + text, "model,cost_usd,date\nm," + text):
        with contextlib.suppress(InvalidInput):
            assert parse(bill, START, END)


def test_models_are_matched_over_their_many_names() -> None:
    """A snapshot's date, dots, spaces and case make no other model; what only one side has stands alone; the largest difference is first."""
    assert canonical("Claude Opus 5.5") == canonical("claude-opus-5-5-20260807") == canonical("claude-opus-5-5-latest") == "claude-opus-5-5"
    billed = [BillLine("GPT-5.5-2026-08-07", FIRST, 50), BillLine("web_search", FIRST, 7), BillLine("big", SECOND, 10)]
    computed = [BillLine("gpt-5.5", FIRST, 40), BillLine("gpt-5.5", SECOND, 30), BillLine("alias", SECOND, 10)]
    found = side_by_side(billed, computed, {"alias": "big"})
    assert found == [
        Compared("gpt-5.5", SECOND, 30, 0),
        Compared("GPT-5.5-2026-08-07", FIRST, 40, 50),
        Compared("web_search", FIRST, 0, 7),
        Compared("big", SECOND, 10, 10),
    ]
    assert coverage(found) == 50 / 67
    assert side_by_side([BillLine("total", None, 90)], computed, {}) == [Compared("total", None, 80, 90)]
    assert side_by_side([BillLine("gpt-5.5", None, 90)], computed, {}) == [Compared("gpt-5.5", None, 70, 90), Compared("alias", None, 10, 0)]
    assert (coverage([]), coverage([Compared("m", None, 5, -5)]), coverage([Compared("m", None, 0, 5)])) == (1.0, 1.0, 0.0)


def test_picodollars_are_rounded_to_even_once() -> None:
    """Half a microdollar goes to the even neighbour, above zero and below."""
    assert [micros(each) for each in (499_999, 500_000, 1_500_000, 1_500_001, -500_000, -1_500_000, -1_500_001)] == [0, 0, 2, 2, 0, -2, -2]
    assert bills.picos("123.45", per=100) == 1_234_500_000_000
