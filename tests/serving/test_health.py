"""What an upstream's health learns from its tries, on a clock that the test turns."""

import pytest

from domain.serving.health import Health, LimitLeft, Standing, Tally, Trouble, limits_left, retry_after_seconds


def _fails(health: Health, at: float, trouble: Trouble = Trouble.BROKEN, *, retry_after_seconds: float | None = None) -> None:
    health.begin(at)
    health.failed(at, trouble, "upstream_500", "The provider answered 500.", retry_after_seconds=retry_after_seconds)


def _serves(health: Health, at: float, first_byte_ms: int = 10) -> None:
    health.begin(at)
    health.succeeded(at, first_byte_ms)


def test_three_failures_in_a_row_cool_it_down_and_a_probe_brings_it_back() -> None:
    """Two failures and a success are nothing; three keep calls away for 5 s; then one call goes, the others wait for it, and its success opens the door."""
    health = Health()
    for at in (0, 1):
        _fails(health, at)
    _serves(health, 2)
    for at in (3, 4):
        _fails(health, at)
    assert health.standing(5) is Standing.READY
    _fails(health, 5)
    assert health.standing(9.9) is Standing.COOLING_DOWN
    assert health.standing(10) is Standing.READY
    health.begin(10)
    assert health.standing(11) is Standing.COOLING_DOWN
    health.succeeded(12, 10)
    assert health.standing(12) is Standing.READY
    assert health.under_way == 0


def test_a_failed_probe_cools_it_down_for_twice_as_long() -> None:
    """5, 10, 20 seconds and so on, never more than 300."""
    health = Health()
    for _ in range(3):
        _fails(health, 0)
    until = 5.0
    for expected in (10, 20, 40, 80, 160, 300, 300):
        _fails(health, until)
        assert health.cools_until == until + expected
        until = health.cools_until


def test_a_probe_that_says_nothing_lets_the_next_one_go() -> None:
    """A client that leaves in the middle of a probe proves nothing; a probe that takes too long holds nobody up."""
    health = Health()
    for _ in range(3):
        _fails(health, 0)
    health.begin(5)
    assert health.standing(5) is Standing.COOLING_DOWN
    health.left()
    assert health.standing(5) is Standing.READY
    health.begin(6)
    assert (health.standing(35.9), health.standing(36)) == (Standing.COOLING_DOWN, Standing.READY)


def test_calls_that_were_under_way_together_are_one_failure() -> None:
    """Ten calls that break at once cool it down for 5 s, not for the tenth power of it."""
    health = Health()
    for _ in range(10):
        health.begin(0)
    for _ in range(10):
        health.failed(1, Trouble.BROKEN, "upstream_broken", "The provider broke off.")
    assert health.cools_until == 6


@pytest.mark.parametrize(
    ("trouble", "asked", "until"), [(Trouble.BUSY, None, 5), (Trouble.BUSY, 42, 42), (Trouble.BUSY, 0, 0), (Trouble.BUSY, 10**9, 3600), (Trouble.ACCOUNT, None, 60)]
)
def test_the_providers_word_counts_at_once(trouble: Trouble, asked: float | None, until: float) -> None:
    """One 429 or 529 keeps calls away for as long as it says, within an hour; an account that is not served for a minute."""
    health = Health()
    _fails(health, 0, trouble, retry_after_seconds=asked)
    assert health.cools_until == until
    assert health.last is not None
    assert health.last.retryable is (trouble is not Trouble.ACCOUNT)


def test_half_of_many_failing_cools_it_down_too() -> None:
    """Every other call fails: never three in a row, and after twenty it is enough."""
    health = Health()
    for number in range(19):
        (_fails if number % 2 else _serves)(health, number / 10)
    assert health.standing(2) is Standing.READY
    _fails(health, 2)
    assert health.standing(2) is Standing.COOLING_DOWN


def test_limits_of_the_provider_are_minded_until_they_reset() -> None:
    """What is left goes down with each call, and at nothing calls go elsewhere until the reset; tokens count by the call's own size."""
    health = Health()
    health.heard([LimitLeft("requests", 50, 1, 60.0), LimitLeft("tokens", 1000, 500, 30.0), LimitLeft("tokens", 9000, 8000, 90.0)])
    assert (health.standing(0, 500), health.standing(0, 501), health.standing(30, 501)) == (Standing.READY, Standing.AT_LIMIT, Standing.READY)
    health.begin(0, 400)
    assert (health.standing(1), health.standing(60)) == (Standing.AT_LIMIT, Standing.READY)
    assert (health.limits["tokens"].left, health.limits["requests"].left) == (100, 0)


def test_the_operators_own_bounds_refill_steadily() -> None:
    """60 calls a minute: the sixty-first waits a second; tokens likewise; a call larger than a minute's tokens waits for a full minute's."""
    health = Health(requests_per_minute=60, tokens_per_minute=6000)
    for _ in range(60):
        assert health.wait_seconds(0, 10) == 0
        health.begin(0, 10)
    assert health.wait_seconds(0, 10) == pytest.approx(1.0)
    assert health.wait_seconds(1, 10) == 0
    assert health.wait_seconds(6, 10_000) == 0
    health.begin(6, 10_000)
    assert health.wait_seconds(6, 1) == pytest.approx(40.01)


def test_the_tally_is_of_five_minutes() -> None:
    """Tries, failures and times to the first byte of the window, and nothing older; two processes' tallies add up."""
    health = Health()
    _serves(health, 0, 9999)
    for number in range(1, 11):
        _serves(health, 200, number * 10)
    _fails(health, 301)
    assert health.tally(301) == Tally(11, 1, tuple(range(10, 101, 10)))
    both = health.tally(301) + Tally(1, 1, (1000,))
    assert (both.error_rate, both.quantile(0.5), both.quantile(0.95)) == (2 / 12, 60, 1000)
    assert (Tally().error_rate, Tally().quantile(0.5)) == (None, None)


def test_anthropics_limits_are_read() -> None:
    """Resets as instants; of input tokens and all tokens the one with less left counts; the rest of the fields is no matter."""
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-11-22T00:00:10Z",
        "anthropic-ratelimit-input-tokens-remaining": "7",
        "anthropic-ratelimit-input-tokens-reset": "2026-11-22T00:01:00Z",
        "anthropic-ratelimit-tokens-remaining": "900",
        "anthropic-ratelimit-tokens-reset": "2026-11-22T00:00:30+00:00",
    }
    epoch = 1795305600.0
    health = Health()
    health.heard(limits_left(headers, 100.0, epoch))
    assert health.limits == {"requests": LimitLeft("requests", 50, 49, 110.0), "tokens": LimitLeft("tokens", None, 7, 160.0)}


@pytest.mark.parametrize(("reset", "seconds"), [("6m0s", 360.0), ("20ms", 0.02), ("1h2m3.5s", 3600.0), ("17", 17.0), (None, 60.0)])
def test_openais_limits_are_read(reset: str | None, seconds: float) -> None:
    """Resets as durations, at most an hour; without one a minute."""
    headers = {"x-ratelimit-limit-tokens": "30000", "x-ratelimit-remaining-tokens": "12"} | ({} if reset is None else {"x-ratelimit-reset-tokens": reset})
    assert limits_left(headers, 0.0, 0.0) == [LimitLeft("tokens", 30000, 12, min(seconds, 3600.0))]


@pytest.mark.parametrize("nonsense", ["", "soon", "-5", "1e9", "٣", "9" * 16, "1.5"])
def test_nonsense_in_limits_is_left_out(nonsense: str) -> None:
    """A field that is no count is not believed, and none raises."""
    assert limits_left({"x-ratelimit-remaining-requests": nonsense}, 0.0, 0.0) == []


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Sun, 22 Nov 2026 00:00:30 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 00:00:30 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds, or a date (RFC 9110, section 10.2.3)."""
    assert retry_after_seconds(headers, 1795305600.0) == seconds
