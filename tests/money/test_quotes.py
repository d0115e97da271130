"""What a call costs: every particular price is a row, and what has none is marked and never cheaper."""

import pytest

from domain.money.catalogue import PriceVersion, entries_of, make_row, quote
from models.enums import Bucket
from tests.money.shipped import SHIPPED, shipped, version

IN, OUT, READ, W5, W1 = Bucket.UNCACHED_INPUT, Bucket.OUTPUT, Bucket.CACHE_READ, Bucket.CACHE_WRITE_5M, Bucket.CACHE_WRITE_1H


def _usd(price: PriceVersion, quantities: dict[Bucket, int], tier: str | None = None, place: str | None = None) -> tuple[int, bool]:
    quoted = quote(price, quantities, service_tier=tier, geography=place)
    return quoted.picousd, quoted.needs_review


# The model, what was used, the tier and place that the answer reports, and what it costs in picodollars: price for a million x tokens x 10^6.
TABLE = [
    ("claude-opus-5-5", {IN: 10, READ: 1000, W5: 100, W1: 10, OUT: 7}, None, None, (40 + 200 + 500 + 80 + 140) * 10**6),
    ("claude-opus-5-5", {IN: 10, OUT: 7}, "standard", "global", (40 + 140) * 10**6),
    ("claude-opus-5-5", {IN: 10, OUT: 7}, "batch", None, (20 + 70) * 10**6),
    ("claude-opus-5-5", {IN: 10, OUT: 7}, None, "us", (44 + 154) * 10**6),
    ("claude-opus-5-5", {IN: 10, OUT: 7}, "batch", "us", (22 + 77) * 10**6),
    ("claude-opus-5-5", {IN: 10, Bucket.WEB_SEARCHES: 3}, "batch", "us", 22 * 10**6 + 3 * 10**10),
    # 100 000 prompt tokens are short, 100 001 long, and then everything is: 50 000 in and 50 001 read at 0.50 and 0.05, 10 out at 2.50.
    ("claude-haiku-5-5", {IN: 50_000, READ: 50_000, OUT: 10}, None, None, 50_000 * 100_000 + 50_000 * 10_000 + 10 * 500_000),
    ("claude-haiku-5-5", {IN: 50_000, READ: 50_001, OUT: 10}, None, None, 50_000 * 500_000 + 50_001 * 50_000 + 10 * 2_500_000),
    ("claude-haiku-5-5", {IN: 100_001, OUT: 1}, None, "us", 100_001 * 550_000 + 2_750_000),
    ("claude-haiku-5-5", {IN: 100_001, OUT: 1}, "batch", "us", 100_001 * 275_000 + 1_375_000),
    ("gpt-5.5", {IN: 10, READ: 100, OUT: 2}, "default", None, (50 + 50 + 60) * 10**6),
    ("gpt-5.5", {IN: 10, READ: 100, OUT: 2}, "flex", None, (25 + 25 + 30) * 10**6),
    ("gpt-5.5", {IN: 10, READ: 100, OUT: 2}, "priority", None, (125 + 125 + 150) * 10**6),
    ("gpt-5.5", {IN: 272_000, OUT: 2}, None, None, 272_000 * 5 * 10**6 + 60 * 10**6),
    ("gpt-5.5", {IN: 272_001, OUT: 2}, None, None, 272_001 * 10 * 10**6 + 90 * 10**6),
    ("gpt-5.5", {IN: 272_001, OUT: 2}, "flex", None, 272_001 * 5 * 10**6 + 45 * 10**6),
    ("text-embedding-3-small", {IN: 1_000}, None, None, 20 * 10**6),
    ("tts-1", {Bucket.CHARACTERS: 4_096}, None, None, 4_096 * 15 * 10**6),
    ("whisper-1", {Bucket.SECONDS: 61}, None, None, 61 * 10**8),
    ("gpt-4o-transcribe", {IN: 10, Bucket.AUDIO_INPUT: 4, OUT: 101}, None, None, (25 + 24 + 1010) * 10**6),
]


@pytest.mark.parametrize(("model", "used", "tier", "place", "picousd"), TABLE)
def test_what_a_call_costs(model: str, used: dict[Bucket, int], tier: str | None, place: str | None, picousd: int) -> None:
    """F12: lifetimes of caches, long prompts, batch, flex, priority and place each have their row; worked out by hand."""
    assert _usd(shipped(model), used, tier, place) == (picousd, False)


PRICED = version(
    (
        make_row(IN, "1"),
        make_row(OUT, "2"),
        make_row(IN, "6", service_tier="fast"),
        make_row(OUT, "12", service_tier="fast"),
        make_row(IN, "3", above_input_tokens=1000),
        make_row(READ, "0.1"),
    )
)


@pytest.mark.parametrize(
    ("used", "tier", "place", "picousd"),
    [
        ({W1: 5}, None, None, 5 * 12),  # a bucket without any row: the dearest token there is
        ({IN: 5}, "priority", None, 5 * 6),  # a tier that no row knows: the dearest row of the bucket
        ({READ: 5, IN: 1}, "fast", None, 0.5 + 6),  # a tier that has rows for other buckets only
        ({IN: 5}, None, "us", 5 * 1),  # a place that no row knows: what it costs elsewhere
        ({IN: 5, OUT: 1}, "fast", "us", 5 * 6 + 12),  # a tier at such a place
        ({IN: 1001}, "fast", None, 1001 * 6),  # a tier whose rows do not tell what a long prompt costs: the dearer of the two
        ({Bucket.WEB_SEARCHES: 1}, None, None, 12),
        ({Bucket.CHARACTERS: 10}, None, None, 120),
    ],
)
def test_what_has_no_row_is_marked_and_never_free(used: dict[Bucket, int], tier: str | None, place: str | None, picousd: float) -> None:
    """F13: nothing falls back to 0, or to a cheaper row than could be meant, in silence."""
    assert _usd(PRICED, used, tier, place) == (int(picousd * 10**6), True)


def test_fast_mode_has_rows_of_its_own() -> None:
    """F12: a tier's rows are taken as they stand; nothing is multiplied."""
    assert _usd(PRICED, {IN: 5, OUT: 1}, "fast") == ((30 + 12) * 10**6, False)


def test_reasoning_costs_apart_only_where_it_has_a_row() -> None:
    """F9: reasoning is a part of output: it is counted once, at its own price or at that of output."""
    apart = version((make_row(IN, "1"), make_row(OUT, "2"), make_row(Bucket.REASONING, "5")))
    assert _usd(apart, {OUT: 10, Bucket.REASONING: 4}) == ((6 * 2 + 4 * 5) * 10**6, False)
    assert _usd(PRICED, {OUT: 10, Bucket.REASONING: 4}) == (10 * 2 * 10**6, False)


def test_a_variant_of_a_price_file_is_rows() -> None:
    """A second `usd_per_million` holds for the tier, place and length that stand beside it."""
    variant = {"service_tier": "batch", "geography": "us", "above_input_tokens": 7, "usd_per_million": {"output": "3"}}
    (entry,) = entries_of({"model": [{"name": "m", "usd_per_million": {"output": "1"}, "variant": [variant]}]})
    assert entry.rows == (make_row(OUT, "1"), make_row(OUT, "3", 1_000_000, 7, "batch", "us"))


def test_every_shipped_model_has_a_price_for_what_it_does() -> None:
    """F13: no capability of a shipped model is without a row."""
    needed = {"tools": {IN, OUT}, "prompt_cache": {READ}, "embeddings": {IN}}
    for entry in SHIPPED.values():
        priced = {row.bucket for row in entry.rows}
        for capability in entry.capabilities:
            assert needed.get(capability.value, set()) <= priced, entry.name
        if "transcription" in entry.capabilities:
            assert priced & {Bucket.SECONDS, Bucket.AUDIO_INPUT}, entry.name
        if "speech" in entry.capabilities:
            assert Bucket.CHARACTERS in priced or {IN, Bucket.AUDIO_OUTPUT} <= priced, entry.name
