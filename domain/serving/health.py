"""How an upstream is doing, learnt from the calls that it served: whether it cools down, how fast and how soundly it answers, what is left of its limits.

Nothing here asks an upstream anything. Instants are seconds of one clock that only goes forward, given by the caller; every process learns for
itself, and hears from the others through `domain.serving.fleet`.
"""

import math
import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

WINDOW_SECONDS = 300.0
"""How far back tries are remembered."""
MOST_TRIES = 2000
"""How many tries are remembered at most, so that memory is bounded; a busy upstream's window is then shorter."""
FAILURES_IN_A_ROW = 3
RATE_SECONDS = 30.0
RATE_TRIES = 20
RATE_OF_FAILURES = 0.5
"""An upstream cools down after FAILURES_IN_A_ROW, or when this part of at least RATE_TRIES tries of the last RATE_SECONDS failed."""
SHORTEST_COOL_DOWN_SECONDS = 5.0
LONGEST_COOL_DOWN_SECONDS = 300.0
LONGEST_RETRY_AFTER_SECONDS = 3600.0
"""The longest that a provider's own word keeps calls away; it may be wrong."""
ACCOUNT_COOL_DOWN_SECONDS = 60.0
"""A bad key or an unpaid bill is repaired by a person, not by waiting a few seconds."""
PROBE_SECONDS = 30.0
"""How long one call keeps the others waiting for what it finds out, at most."""


class Standing(StrEnum):
    """Whether calls are sent to an upstream; the order is the order of preference."""

    READY = "ready"
    AT_LIMIT = "at_limit"
    COOLING_DOWN = "cooling_down"


class Trouble(StrEnum):
    """What kind of failure a try met.

    BROKEN: away, slow, cut or a server's error. BUSY: the provider says that it has no room, for us or at all. ACCOUNT: the provider does not serve
    the installation's account: a wrong key, an unpaid bill, a quota that is used up.
    """

    BROKEN = "broken"
    BUSY = "busy"
    ACCOUNT = "account"


@dataclass(frozen=True, slots=True)
class LimitLeft:
    """What a provider last said of one of its limits; `resource` is `requests` or `tokens`, `resets_at` an instant of the same clock."""

    resource: str
    most: int | None
    left: int
    resets_at: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The last try that failed."""

    at: float
    code: str
    message: str
    retryable: bool


@dataclass(slots=True)
class _Try:
    at: float
    failed: bool
    first_byte_ms: int | None


class _Bucket:
    """A minute's allowance that refills steadily, and holds no more than a minute's."""

    __slots__ = ("_at", "_left", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = float(most)
        self._at: float | None = None

    def _refill(self, at: float) -> None:
        if self._at is not None:
            self._left = min(float(self._most), self._left + max(at - self._at, 0.0) * self._most / 60.0)
        self._at = at

    def wait_seconds(self, amount: int, at: float) -> float:
        """Return how long it takes until `amount` is there, 0 when it is; what is more than a minute's goes when the bucket is full."""
        self._refill(at)
        return max(min(amount, self._most) - self._left, 0.0) * 60.0 / self._most

    def take(self, amount: int, at: float) -> None:
        self._refill(at)
        self._left -= amount


@dataclass(slots=True)
class Health:
    """One upstream, as this process knows it.

    `requests_per_minute` and `tokens_per_minute` are the operator's own bounds, for this process; None is unbounded.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    under_way: int = 0
    cools_until: float = 0.0
    last: Failed | None = None
    limits: dict[str, LimitLeft] = field(default_factory=dict)
    _tries: "deque[_Try]" = field(default_factory=lambda: deque(maxlen=MOST_TRIES))
    _in_a_row: int = 0
    _cool_downs: int = 0
    _unproved: bool = False
    _probing_since: float | None = None
    _requests: _Bucket | None = None
    _tokens: _Bucket | None = None

    def __post_init__(self) -> None:
        self._requests = _Bucket(self.requests_per_minute) if self.requests_per_minute else None
        self._tokens = _Bucket(self.tokens_per_minute) if self.tokens_per_minute else None

    # What decides where a call goes.

    def standing(self, at: float, tokens: int = 1) -> Standing:
        """Tell whether a call of about so many tokens should come here now.

        After a cool-down one call goes first and finds out; the others keep away until it has, or for PROBE_SECONDS.
        """
        if at < self.cools_until:
            return Standing.COOLING_DOWN
        if self._unproved and self._probing_since is not None and at - self._probing_since < PROBE_SECONDS:
            return Standing.COOLING_DOWN
        for limit in self.limits.values():
            if at < limit.resets_at and limit.left < (tokens if limit.resource == "tokens" else 1):
                return Standing.AT_LIMIT
        return Standing.READY

    @property
    def bounded(self) -> bool:
        """Whether the operator has set a bound for the upstream."""
        return self._requests is not None or self._tokens is not None

    def wait_seconds(self, at: float, tokens: int = 1) -> float:
        """Return how long a call must wait by the operator's own bounds, 0 when it need not."""
        requests = self._requests.wait_seconds(1, at) if self._requests else 0.0
        return max(requests, self._tokens.wait_seconds(tokens, at) if self._tokens else 0.0)

    # What is learnt from a try.

    def begin(self, at: float, tokens: int = 1) -> None:
        """Take note of a call that goes there now."""
        self.under_way += 1
        if self._requests:
            self._requests.take(1, at)
        if self._tokens:
            self._tokens.take(tokens, at)
        for name, limit in self.limits.items():  # until the provider says more, its own arithmetic
            used = tokens if limit.resource == "tokens" else 1
            self.limits[name] = LimitLeft(limit.resource, limit.most, max(limit.left - used, 0), limit.resets_at)
        if self._unproved and at >= self.cools_until:
            self._probing_since = at

    def succeeded(self, at: float, first_byte_ms: int | None) -> None:
        """Take note of a try that the upstream served, or refused for a reason of the client's: both prove that it is well."""
        self.under_way -= 1
        self._tries.append(_Try(at, False, first_byte_ms))
        self._in_a_row = 0
        if at >= self.cools_until:
            self._unproved, self._probing_since, self._cool_downs = False, None, 0

    def failed(self, at: float, trouble: Trouble, code: str, message: str, *, retry_after_seconds: float | None = None, first_byte_ms: int | None = None) -> None:
        """Take note of a try that the upstream failed; it cools down when that is one too many, or when the provider asks for it."""
        self.under_way -= 1
        self._tries.append(_Try(at, True, first_byte_ms))
        self._in_a_row += 1
        self.last = Failed(at, code, message, trouble is not Trouble.ACCOUNT)
        probe = self._unproved and self._probing_since is not None
        self._probing_since = None
        if trouble is Trouble.BROKEN and retry_after_seconds is None and not probe and self._in_a_row < FAILURES_IN_A_ROW and not self._mostly_fails(at):
            return
        if at >= self.cools_until:  # calls that were under way together are one failure
            self._cool_downs += 1
        shortest = ACCOUNT_COOL_DOWN_SECONDS if trouble is Trouble.ACCOUNT else SHORTEST_COOL_DOWN_SECONDS
        growing = min(shortest * 2 ** min(max(self._cool_downs - 1, 0), 10), LONGEST_COOL_DOWN_SECONDS)
        asked = None if retry_after_seconds is None else min(max(retry_after_seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)
        self.cool(at + (growing if asked is None else asked))

    def left(self) -> None:
        """Take note of a try that ended for a reason that says nothing of the upstream: its client left, or this process stops."""
        self.under_way -= 1
        self._probing_since = None

    def cool(self, until: float) -> None:
        """Keep calls away until an instant, and let one prove then that it is well again; never shorter than before."""
        self.cools_until = max(self.cools_until, until)
        self._unproved = True

    def heard(self, limits: Iterable[LimitLeft]) -> None:
        """Take over what the provider says of its limits; of two limits of the same resource, the one with less left counts."""
        told: dict[str, LimitLeft] = {}
        for limit in limits:
            known = told.get(limit.resource)
            if known is None or limit.left < known.left:
                told[limit.resource] = limit
        self.limits.update(told)

    def _mostly_fails(self, at: float) -> bool:
        recent = [entry.failed for entry in self._tries if at - entry.at <= RATE_SECONDS]
        return len(recent) >= RATE_TRIES and sum(recent) >= RATE_OF_FAILURES * len(recent)

    # What is told of it.

    def tally(self, at: float) -> "Tally":
        """Return what the last WINDOW_SECONDS were like."""
        recent = [entry for entry in self._tries if at - entry.at <= WINDOW_SECONDS]
        return Tally(len(recent), sum(entry.failed for entry in recent), tuple(entry.first_byte_ms for entry in recent if entry.first_byte_ms is not None))


@dataclass(frozen=True, slots=True)
class Tally:
    """Tries of a window, how many of them failed, and the time to the first byte of each that had one, in milliseconds."""

    tries: int = 0
    failures: int = 0
    first_byte_ms: tuple[int, ...] = ()

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.tries + other.tries, self.failures + other.failures, self.first_byte_ms + other.first_byte_ms)

    @property
    def error_rate(self) -> float | None:
        """The part that failed, 0 to 1; None when there were none."""
        return self.failures / self.tries if self.tries else None

    def quantile(self, part: float) -> int | None:
        """Return the time to the first byte that this part of the tries did not exceed; None when there were none."""
        ordered = sorted(self.first_byte_ms)
        return ordered[max(math.ceil(part * len(ordered)) - 1, 0)] if ordered else None


def limits_left(headers: Mapping[str, str], at: float, now_epoch_seconds: float) -> list[LimitLeft]:
    """Read the rate-limit header fields of an answer, both vendors' spellings; what cannot be read is left out.

    `headers` by lower-case name. Anthropic's resets are RFC 3339 instants, OpenAI's are durations such as `6m0s` or `20ms`. A limit that names no
    reset is taken to refill in a minute. Sources: the vendors' pages on rate limits.
    """
    found = []
    for prefix, names in _SPELLINGS:
        for name, resource in names:
            left = _count(headers.get(prefix.format(name, "remaining")))
            if left is None:
                continue
            reset = headers.get(prefix.format(name, "reset"))
            seconds = 60.0 if reset is None else _seconds_until(reset, now_epoch_seconds)
            if seconds is not None:
                found.append(LimitLeft(resource, _count(headers.get(prefix.format(name, "limit"))), left, at + min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)))
    return found


_SPELLINGS = (
    ("anthropic-ratelimit-{0}-{1}", (("requests", "requests"), ("tokens", "tokens"), ("input-tokens", "tokens"))),
    ("x-ratelimit-{1}-{0}", (("requests", "requests"), ("tokens", "tokens"))),
)
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)?")
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|[smhd]))+|[0-9]{1,9}(?:\.[0-9]{1,9})?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= 15 else None


def _seconds_until(text: str, now_epoch_seconds: float) -> float | None:
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS[unit or "s"] for number, unit in _PART.findall(text))
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant.timestamp() - now_epoch_seconds if instant.tzinfo is not None else None


def retry_after_seconds(headers: Mapping[str, str], now_epoch_seconds: float) -> float | None:
    """Return how long a provider asks to be left alone: `retry-after-ms`, or `retry-after` in seconds or as a date; None when it does not say."""
    milliseconds = _count(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    if text is None:
        return None
    seconds = _count(text)
    if seconds is not None:
        return float(seconds)
    try:
        return max(parsedate_to_datetime(text).timestamp() - now_epoch_seconds, 0.0)
    except (ValueError, TypeError):
        return None
