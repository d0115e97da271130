"""From a provider's own words to picodollars: every shape of usage that is known, each charge worked out by hand from the shipped prices.

A price of 4 USD a million tokens is 4 000 000 picodollars a token, which is 4 microdollars.
"""

import json
from typing import Any, NamedTuple

import pytest

from domain.money.catalogue import PriceVersion, make_row, quote
from models.enums import Bucket
from proxy.dialects import anthropic, openai, responses
from proxy.dialects.base import Usage
from tests.money.shipped import shipped, version
from tests.proxy.dialects import responses_recordings
from tests.proxy.dialects.recordings import HEAD, anthropic_ask, chunk, chunks, events, finish, openai_ask, start, text_block

MICRO = 10**6


class Case(NamedTuple):
    """A report as it comes, the price that holds, and what it costs in microdollars; `review` when a person should look."""

    name: str
    report: dict[str, Any]
    microusd: float
    review: bool = False
    price: str = ""


def cost(usage: Usage, price: PriceVersion) -> tuple[int, bool]:
    """Price a usage as its settlement does."""
    used = {bucket: amount for bucket, amount in usage.buckets() if amount}
    quoted = quote(price, used, service_tier=usage.service_tier, geography=usage.geography)
    return quoted.picousd, quoted.needs_review or usage.doubtful


# Anthropic. Opus 5.5: in 4, write 5m 5, write 1h 8, read 0.2, out 20, a search 10 000.
SPLIT = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 10}
MESSAGES = [
    Case("plain", {"input_tokens": 25, "output_tokens": 15}, 25 * 4 + 15 * 20),
    Case(
        "every cache",
        {"input_tokens": 3, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 110, "cache_creation": SPLIT, "output_tokens": 1},
        12 + 200 + 500 + 80 + 20,
    ),
    Case("writes in one sum are of five minutes", {"input_tokens": 3, "cache_creation_input_tokens": 110, "output_tokens": 1}, 12 + 550 + 20),
    Case("writes only split", {"input_tokens": 3, "cache_creation": SPLIT, "output_tokens": 1}, 12 + 500 + 80 + 20),
    Case("a sum of zero beats its split", {"input_tokens": 3, "cache_creation_input_tokens": 0, "cache_creation": SPLIT, "output_tokens": 1}, 12 + 20),
    Case(
        "web searches; fetches are free",
        {"input_tokens": 3, "output_tokens": 1, "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 5}},
        12 + 20 + 20_000,
    ),
    Case("code that was run has no bucket", {"input_tokens": 3, "output_tokens": 1, "server_tool_use": {"code_execution_requests": 1}}, 12 + 20, review=True),
    Case("a tool to come has no bucket", {"input_tokens": 3, "output_tokens": 1, "server_tool_use": {"novelty_requests": 2}}, 12 + 20, review=True),
    Case("pages that were fetched are free", {"input_tokens": 3, "output_tokens": 1, "server_tool_use": {"web_fetch_requests": 2, "novelty_requests": 0}}, 12 + 20),
    Case("an iteration to come", {"input_tokens": 3, "output_tokens": 1, "iterations": [{"type": "novelty", "input_tokens": 9}]}, 12 + 20, review=True),
    Case("thinking is inside the output", {"input_tokens": 3, "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 8}}, 12 + 180),
    Case("standard and global", {"input_tokens": 3, "output_tokens": 1, "service_tier": "standard", "inference_geo": "global", "speed": "standard"}, 12 + 20),
    Case("batch is half", {"input_tokens": 3, "output_tokens": 1, "service_tier": "batch"}, 6 + 10),
    Case("the United States are a tenth more", {"input_tokens": 10, "output_tokens": 1, "inference_geo": "us"}, 44 + 22),
    Case("both", {"input_tokens": 10, "output_tokens": 1, "inference_geo": "us", "service_tier": "batch"}, 22 + 11),
    Case("nobody knows where", {"input_tokens": 3, "output_tokens": 1, "inference_geo": "not_available"}, 12 + 20),
    Case("a place without a row", {"input_tokens": 3, "output_tokens": 1, "inference_geo": "eu"}, 12 + 20, review=True),
    # Dearest rows: in 8.8, those of the fast mode in the United States; out 44.
    Case("a tier without a row", {"input_tokens": 3, "output_tokens": 1, "service_tier": "priority"}, 3 * 8.8 + 44, review=True),
    Case("fast mode", {"input_tokens": 3, "output_tokens": 1, "cache_read_input_tokens": 10, "speed": "fast"}, 3 * 8 + 4 + 40),
    Case("fast mode in a place", {"input_tokens": 3, "output_tokens": 1, "speed": "fast", "inference_geo": "us"}, 3 * 8.8 + 44),
    Case("fast mode without rows", {"input_tokens": 3, "output_tokens": 1, "speed": "fast"}, 3 * 2.2 + 11, price="claude-sonnet-5-5", review=True),
    Case("fast mode with rows", {"input_tokens": 3, "output_tokens": 1, "speed": "fast", "service_tier": "standard"}, 3 * 24 + 120, price="fast"),
    Case("a short prompt of Haiku", {"input_tokens": 100_000, "output_tokens": 10}, 100_000 * 0.1 + 5, price="claude-haiku-5-5"),
    Case("a long prompt of Haiku", {"input_tokens": 100_001, "output_tokens": 10}, 100_001 * 0.5 + 25, price="claude-haiku-5-5"),
    Case(
        "what is read and written makes a prompt long",
        {"input_tokens": 1, "cache_read_input_tokens": 90_000, "cache_creation_input_tokens": 10_000, "output_tokens": 0},
        0.5 + 4_500 + 6_250,
        price="claude-haiku-5-5",
    ),
    Case(
        "a compaction comes on top",
        {
            "input_tokens": 10,
            "output_tokens": 2,
            "iterations": [{"type": "compaction", "input_tokens": 100, "output_tokens": 20}, {"type": "message", "input_tokens": 10, "output_tokens": 2}],
        },
        110 * 4 + 22 * 20,
    ),
    Case("nulls are no numbers", {"input_tokens": 3, "output_tokens": 1, "cache_read_input_tokens": None, "server_tool_use": None, "cache_creation": None}, 12 + 20),
    Case("fields to come", {"input_tokens": 3, "output_tokens": 1, "fallback_credit": {"x": 1}, "novelty_tokens": 9}, 12 + 20),
]
FAST = version(
    (
        make_row(Bucket.UNCACHED_INPUT, "4"),
        make_row(Bucket.OUTPUT, "20"),
        make_row(Bucket.UNCACHED_INPUT, "24", service_tier="fast"),
        make_row(Bucket.OUTPUT, "120", service_tier="fast"),
    )
)


def _price(case: Case, usual: str) -> PriceVersion:
    return FAST if case.price == "fast" else shipped(case.price or usual)


@pytest.mark.parametrize("case", MESSAGES, ids=[case.name for case in MESSAGES])
def test_messages(case: Case) -> None:
    """F9, F10, F11, F12, F13: whole and streamed answers cost the same, to the picodollar."""
    price = _price(case, "claude-opus-5-5")
    whole = {"type": "message", "model": "claude", "content": [{"type": "text", "text": "x"}], "usage": case.report}
    assert cost(anthropic.read(json.dumps(whole).encode(), anthropic_ask()).usage, price) == (round(case.microusd * MICRO), case.review)
    # In a stream the lifetimes, tier and place come with the start and the totals at the end; reported twice they count once.
    final = {name: value for name, value in case.report.items() if name not in ("cache_creation", "service_tier", "inference_geo", "speed")}
    meter = anthropic.meter(anthropic_ask())
    early: dict[str, object] = {"type": "message_delta", "delta": {}, "usage": {**final, "output_tokens": 1}}
    meter.feed(events(start({**case.report, "output_tokens": 1}), *text_block("x"), early, *finish(final)))
    assert cost(meter.usage, price) == (round(case.microusd * MICRO), case.review)


def test_only_who_asks_for_the_fast_mode_is_held_for_it() -> None:
    """F12: what a call may cost at most counts the rows of the fast mode where its body asks for that, and not otherwise."""
    price, body = shipped("claude-opus-5-5"), {"model": "claude-opus-5-5", "max_tokens": 5, "messages": []}
    for more, microusd in (({}, 20), ({"speed": "standard"}, 20), ({"speed": "fast"}, 40)):
        ask = anthropic.parse(json.dumps(body | more).encode())
        assert price.dearest((Bucket.OUTPUT,), prompt_tokens=10, fast=ask.fast) == microusd * MICRO


def test_an_advisor_and_a_fallback_are_priced_as_their_own_models() -> None:
    """F12: what another model did is told apart, under its name."""
    usage = {
        "input_tokens": 10,
        "output_tokens": 2,
        "iterations": [
            {"type": "advisor_message", "model": "claude-fable-5-2", "input_tokens": 7, "output_tokens": 1},
            {"type": "fallback_message", "model": "claude-haiku-5-5", "input_tokens": 10, "output_tokens": 2},
        ],
    }
    read = anthropic.read(json.dumps({"content": [], "usage": usage}).encode(), anthropic_ask()).usage
    assert read.model == "claude-haiku-5-5"
    assert cost(read, shipped("claude-haiku-5-5")) == (10 * 100_000 + 2 * 500_000, False)
    (advisor,) = read.others
    assert (advisor.model, cost(advisor, shipped("claude-fable-5-2"))) == ("claude-fable-5-2", (7 * 8 * MICRO + 40 * MICRO, False))


# OpenAI and those who speak its dialect. GPT-5.5: in 5, read 0.5, out 30; a model of all buckets: in 1, read 0.1, write 1.25, out 4, sound 10 and 20.
ALL = version(
    (
        *(
            make_row(bucket, usd)
            for bucket, usd in ((Bucket.UNCACHED_INPUT, "1"), (Bucket.CACHE_READ, "0.1"), (Bucket.CACHE_WRITE_5M, "1.25"), (Bucket.CACHE_WRITE_1H, "2"))
        ),
        *(make_row(bucket, usd) for bucket, usd in ((Bucket.OUTPUT, "4"), (Bucket.AUDIO_INPUT, "10"), (Bucket.AUDIO_OUTPUT, "20"))),
        make_row(Bucket.WEB_SEARCHES, "10", per=1000),
        make_row(Bucket.SECONDS, "0.006", per=60),
    )
)


def _chat(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}


CHATS = [
    Case("plain", _chat(25, 12), 25 * 5 + 12 * 30, price="gpt-5.5"),
    Case("cached", _chat(100, 1, prompt_tokens_details={"cached_tokens": 60}), 40 * 5 + 30 + 30, price="gpt-5.5"),
    Case("reasoning is inside the output", _chat(10, 9, completion_tokens_details={"reasoning_tokens": 8}), 50 + 270, price="gpt-5.5"),
    Case(
        "rejected predictions are inside the output",
        _chat(10, 9, completion_tokens_details={"accepted_prediction_tokens": 1, "rejected_prediction_tokens": 7}),
        50 + 270,
        price="gpt-5.5",
    ),
    Case("images seen are inside the prompt", _chat(800, 1, prompt_tokens_details={"image_tokens": 765}), 4000 + 30, price="gpt-5.5"),
    Case("a long prompt", _chat(272_001, 1), 2_720_010 + 45, price="gpt-5.5"),
    Case("cache writes", _chat(100, 1, prompt_tokens_details={"cached_tokens": 50, "cache_write_tokens": 40}), 10 + 5 + 50 + 4),
    Case(
        "cache writes of both lifetimes",
        _chat(100, 1, prompt_tokens_details={"cache_write_tokens": 40, "cache_write_tokens_details": {"ttl_30m_tokens": 30, "ttl_12h_tokens": 10}}),
        60 + 37.5 + 20 + 4,
    ),
    Case("sound both ways", _chat(100, 80, prompt_tokens_details={"audio_tokens": 30}, completion_tokens_details={"audio_tokens": 60}), 70 + 300 + 80 + 1200),
    Case("images made have no bucket", _chat(10, 9, completion_tokens_details={"image_tokens": 8}), 10 + 36, review=True),
    Case("DeepSeek", _chat(100, 1, prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=36), 36 + 6.4 + 4),
    Case("DeepSeek, told twice", _chat(100, 1, prompt_cache_hit_tokens=64, prompt_tokens_details={"cached_tokens": 64}), 36 + 6.4 + 4),
    Case("xAI: reasoning is only in the total", {**_chat(10, 2), "total_tokens": 62, "completion_tokens_details": {"reasoning_tokens": 50}}, 10 + 52 * 4),
    Case("Gemini: thoughts are only in the total", {**_chat(10, 2), "total_tokens": 62}, 10 + 52 * 4),
    Case("a total that is too small is of no matter", {**_chat(10, 2), "total_tokens": 1}, 10 + 8),
    # F15: what OpenRouter charges its own customer, or passes on for a key brought along, is no usage, and is never added up.
    Case("OpenRouter's credits", _chat(10, 2, cost=0.95, cost_details={"upstream_inference_cost": None}), 10 + 8),
    Case("OpenRouter, with one's own key", _chat(10, 2, cost=0.05, is_byok=True, cost_details={"upstream_inference_cost": 19.0}), 10 + 8),
    Case("OpenRouter's searches", _chat(10, 2, server_tool_use={"web_search_requests": 3}), 10 + 8 + 30_000),
    Case("Perplexity's searches", _chat(10, 2, num_search_queries=2, citation_tokens=7), 10 + 8 + 20_000),
    Case("Mistral's seconds of sound", _chat(10, 2, prompt_audio_seconds=61), 10 + 8 + 61 * 100),
    Case("Mistral, without sound", _chat(10, 2, prompt_audio_seconds={}), 10 + 8),
    Case("Groq's times", _chat(10, 2, queue_time=0.01, prompt_time=0.002, total_time=0.2), 10 + 8),
    Case("details that are null", _chat(10, 2, prompt_tokens_details=None, completion_tokens_details=None), 10 + 8),
]


def _completion(report: object, **more: Any) -> bytes:
    return json.dumps({**HEAD, "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}], "usage": report, **more}).encode()


@pytest.mark.parametrize("case", CHATS, ids=[case.name for case in CHATS])
def test_chat_completions(case: Case) -> None:
    """F9, F12, F13, F15: whole answers and streams cost the same, wherever a stream tells its usage."""
    price = shipped(case.price) if case.price else ALL
    expected = (round(case.microusd * MICRO), case.review)
    assert cost(openai.read(_completion(case.report), openai_ask()).usage, price) == expected
    streams = {
        "a chunk of its own": chunks(chunk("x"), chunk(None, "stop"), {**HEAD, "choices": [], "usage": case.report}),
        "the chunk that ends": chunks(chunk("x"), chunk(None, "stop", usage=case.report)),
        "every chunk, growing": chunks(
            chunk("x", usage={**case.report, "completion_tokens": 1}), chunk(None, "stop", usage=case.report), {**HEAD, "choices": [], "usage": case.report}
        ),
        "no [DONE]": chunks(chunk("x"), chunk(None, "stop"), {**HEAD, "choices": [], "usage": case.report}, done=False),
    }
    for shape, stream in streams.items():
        meter = openai.meter(openai_ask())
        meter.feed(stream)
        assert cost(meter.usage, price) == expected, shape


NO_BILLS: list[Any] = [None, True, "0.1", -1, 1e30, {"total_cost": 1}, []]
BILLS: list[tuple[str, dict[str, Any], int | None]] = [
    ("credits: the provider's part is inside", {"cost": 0.95, "cost_details": {"upstream_inference_cost": 0.9}}, 950_000 * MICRO),
    ("credits, to the picodollar", {"cost": 1.4e-05, "is_byok": False, "cost_details": {"upstream_inference_cost": None}}, 14 * MICRO),
    ("one's own key: a fee beside what the provider took", {"cost": 0.05, "is_byok": True, "cost_details": {"upstream_inference_cost": 19.0}}, 19_050_000 * MICRO),
    ("one's own key, no fee", {"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.25}}, 250_000 * MICRO),
    ("nothing", {"cost": 0}, 0),
    *((f"no bill: {told}", {"cost": told}, None) for told in NO_BILLS),
]


@pytest.mark.parametrize(("name", "told", "picousd"), BILLS, ids=[row[0] for row in BILLS])
def test_what_a_provider_bills_is_kept_as_it_says(name: str, told: dict[str, Any], picousd: int | None) -> None:
    """F14, F15: OpenRouter's `cost`, whole and streamed, is the operator's bill to the picodollar; what can be no bill is none."""
    report = _chat(10, 2, **told)
    assert openai.read(_completion(report), openai_ask()).usage.cost_picousd == picousd
    meter = openai.meter(openai_ask())
    meter.feed(chunks(chunk("x"), chunk(None, "stop"), {**HEAD, "choices": [], "usage": report}))
    assert meter.usage.cost_picousd == picousd


@pytest.mark.parametrize(
    ("tier", "microusd", "review"), [(None, 80, False), ("default", 80, False), ("auto", 80, False), ("flex", 40, False), ("priority", 200, False), ("scale", 200, True)]
)
def test_the_tier_of_the_answer_counts(tier: str | None, microusd: int, review: bool) -> None:
    """F12: the answer's tier is charged, whatever was asked; one without a row costs the dearest and is looked at: 10 in and 1 out of GPT-5.5."""
    assert cost(openai.read(_completion(_chat(10, 1), service_tier=tier), openai_ask()).usage, shipped("gpt-5.5")) == (microusd * MICRO, review)


def test_a_search_that_comes_with_a_chat_is_charged() -> None:
    """F13: a chat with `web_search_options` searches once, which its usage does not say; whole and streamed: 10 in, 1 out, one search of GPT-5.5."""
    ask = openai_ask(web_search_options={})
    assert cost(openai.read(_completion(_chat(10, 1)), ask).usage, shipped("gpt-5.5")) == ((80 + 10_000) * MICRO, False)
    meter = openai.meter(ask)
    assert meter.usage == Usage()
    meter.feed(chunks(chunk("x"), chunk(None, "stop", usage=_chat(10, 1))))
    assert cost(meter.usage, shipped("gpt-5.5")) == ((80 + 10_000) * MICRO, False)


@pytest.mark.parametrize("report", [None, {}, {"prompt_tokens": 10}, "none", []])
def test_no_usage_is_estimated(report: object) -> None:
    """F16: without a report, 8 tokens counted in and one for `x` are charged; nobody needs to look."""
    assert cost(openai.read(_completion(report), openai_ask()).usage, shipped("gpt-5.5")) == ((8 * 5 + 30) * MICRO, False)


def _response(given: int, made: int, **details: Any) -> dict[str, Any]:
    return {"input_tokens": given, "output_tokens": made, "total_tokens": given + made, **details}


RESPONSES = [
    Case("plain", _response(75, 20), 375 + 600, price="gpt-5.5"),
    Case("cached", _response(100, 1, input_tokens_details={"cached_tokens": 60}), 200 + 30 + 30, price="gpt-5.5"),
    Case("written", _response(100, 1, input_tokens_details={"cached_tokens": 50, "cache_write_tokens": 40}), 10 + 5 + 50 + 4),
    Case(
        "written for long",
        _response(100, 1, input_tokens_details={"cache_write_tokens": 40, "cache_write_tokens_details": {"ttl_30m_tokens": 0, "ttl_12h_tokens": 40}}),
        60 + 80 + 4,
    ),
    Case("reasoning", _response(10, 9, output_tokens_details={"reasoning_tokens": 8}), 50 + 270, price="gpt-5.5"),
    Case("long", _response(272_001, 1), 2_720_010 + 45, price="gpt-5.5"),
]


@pytest.mark.parametrize("case", RESPONSES, ids=[case.name for case in RESPONSES])
def test_responses(case: Case) -> None:
    """F9, F12: the same numbers under other names, on every terminal event."""
    price = shipped(case.price) if case.price else ALL
    expected = (round(case.microusd * MICRO), case.review)
    told = responses_recordings.response(usage=case.report, output=[responses_recordings.message("x")])
    assert cost(responses.read(json.dumps(told).encode(), responses_recordings.ask()).usage, price) == expected
    for status in ("completed", "incomplete", "failed"):
        meter = responses.meter(responses_recordings.ask())
        meter.feed(b"".join(responses_recordings.stream("x", status=status, usage=case.report)))
        assert cost(meter.usage, price) == expected


def test_a_search_of_a_response_is_charged() -> None:
    """F13: searches stand in no usage: they are counted by their items, at 10 USD a thousand."""
    item = {"type": "web_search_call", "status": "completed", "action": {"type": "search"}}
    told = responses_recordings.response(usage=_response(10, 1), output=[item, item, {**item, "action": {"type": "find_in_page"}}])
    assert cost(responses.read(json.dumps(told).encode(), responses_recordings.ask()).usage, shipped("gpt-5.5")) == ((80 + 20_000) * MICRO, False)


def test_an_error_under_200_costs_nothing() -> None:
    """F18: text of an error is no output."""
    error = json.dumps({"error": {"message": "much text " * 100}}).encode()
    assert not anthropic.read(error, anthropic_ask()).complete
    assert not openai.read(error, openai_ask()).complete
    assert not responses.read(error, responses_recordings.ask()).complete
