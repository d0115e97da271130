"""Smoothing: so many requests a second for each key, with a burst, shared by all processes. It guards the door; what is exact are the bounds of the books.

The algorithm is GCRA: a key has a `burst` that refills at `per_second`. Far from its end a request is decided here, without waiting for anybody,
and told to the shared server with others a moment later; near its end each request asks the shared server, which decides by its own clock.
Without that server each process decides by itself, so that a limit is then for each process, and never gone.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from domain.errors import BoundReached
from domain.tasks import end

TELL_SECONDS = 0.1
"""How long a request that was decided here may be untold to the others."""
AWAY_SECONDS = 1.0
"""How long the shared server is not asked again after it failed."""
TOO_FAST = "Too many requests a second with this key; slow down, and try again in a moment."
MOST_KEYS = 50_000
"""How many keys a process remembers; beyond that, those go that are at rest."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests a second, or parts of one, after a burst."""

    per_second: float
    burst: int

    @property
    def window_seconds(self) -> int:
        """How long a whole burst takes to refill, in whole seconds, at least 1."""
        return max(1, math.ceil(self.burst / self.per_second))


@dataclass(frozen=True, slots=True)
class Demand:
    """What one key asks of the shared server: `taken` were let in already, `asked` wait for its word."""

    name: str
    taken: int
    asked: int


@dataclass(frozen=True, slots=True)
class Stand:
    """The shared server's word: how many of those that asked may pass, how many more could, and in how many seconds the next could."""

    granted: int
    left: int
    wait_seconds: float


class Shared(Protocol):
    """Counts for all processes, by its own clock."""

    async def take(self, rate: Rate, demands: Sequence[Demand]) -> Sequence[Stand]:
        """Count what was taken, grant what fits; one round trip. Raises whatever the connection raises."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a key stands after a request: `left` requests may follow at once, `refill_seconds` until its burst is whole again."""

    left: int
    refill_seconds: int


@dataclass(slots=True)
class _Key:
    left: float
    at: float
    untold: int = 0
    waiting: list["asyncio.Future[bool]"] | None = None
    wait_seconds: float = 0.0


class Smoother:
    """One rate for many keys, in one process; `kind` keeps its counts apart from others' on the shared server, `refusal` is what is said to who is too fast."""

    def __init__(self, kind: str, rate: Rate | None, shared: Shared, *, refusal: str = TOO_FAST, clock: Callable[[], float] = time.monotonic) -> None:
        self._refusal = refusal
        self.rate = rate
        self._kind = kind
        self._shared = shared
        self._clock = clock
        self._keys: dict[str, _Key] = {}
        self._untold: set[str] = set()
        self._telling: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self._away_until = 0.0
        self._policy: tuple[bytes, bytes] | None = None

    async def take(self, name: str) -> Standing | None:
        """Count a request of a key, and return where it stands; None where nothing is smoothed. Raises BoundReached, saying when to come again."""
        rate = self.rate
        if rate is None:
            return None
        now = self._clock()
        key = self._key(name, now)
        near = key.left < rate.burst / 2 or key.waiting is not None
        if near and now >= self._away_until:
            if not await self._asked(name, key):
                self._refuse(key.wait_seconds)
        elif key.left >= 1:
            key.left -= 1
            key.untold += 1
            self._untold.add(name)
            if self._telling is None:
                self._telling = asyncio.create_task(self._tell_soon())
        else:
            self._refuse((1 - key.left) / rate.per_second)
        left = max(0, int(key.left))
        return Standing(left, math.ceil((rate.burst - left) / rate.per_second))

    def fields(self, standing: Standing) -> list[tuple[bytes, bytes]]:
        """Return the header fields that tell where a key stands (draft-ietf-httpapi-ratelimit-headers-10)."""
        assert self.rate is not None, "nothing stands where nothing is smoothed"
        if self._policy is None:
            self._policy = (b"ratelimit-policy", b'"%b";q=%d;w=%d' % (self._kind.encode(), self.rate.burst, self.rate.window_seconds))
        return [self._policy, (b"ratelimit", b'"%b";r=%d;t=%d' % (self._kind.encode(), standing.left, standing.refill_seconds))]

    async def close(self) -> None:
        """Tell what is untold."""
        if self._telling is not None:
            await end([self._telling])
        await self._tell()

    def _refuse(self, wait_seconds: float) -> None:
        resets_at = datetime.now(UTC) + timedelta(seconds=wait_seconds)
        raise BoundReached(self._refusal, bound=self._kind, resets_at=resets_at)

    def _key(self, name: str, now: float) -> _Key:
        assert self.rate is not None
        key = self._keys.get(name)
        if key is None:
            if len(self._keys) >= MOST_KEYS:
                self._forget(now)
            key = self._keys[name] = _Key(left=self.rate.burst, at=now)
        else:
            key.left = min(self.rate.burst, key.left + (now - key.at) * self.rate.per_second)
            key.at = now
        return key

    def _forget(self, now: float) -> None:
        """Let go of keys at rest; when too few are, of the first half: what they have left is the shared server's to know."""
        assert self.rate is not None
        rest = self.rate.window_seconds
        at_rest = [name for name, key in self._keys.items() if now - key.at > rest and key.waiting is None]
        for name in at_rest if len(at_rest) > MOST_KEYS // 10 else [name for name, key in list(self._keys.items())[: MOST_KEYS // 2] if key.waiting is None]:
            del self._keys[name]
            self._untold.discard(name)

    async def _asked(self, name: str, key: _Key) -> bool:
        """Wait for the shared server's word; those of one key that come meanwhile go together in the next round."""
        word: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if key.waiting is not None:
            key.waiting.append(word)
        else:
            key.waiting = [word]
            rounds = asyncio.create_task(self._rounds(name, key))  # a task of its own: a client that leaves stops nobody else
            self._asking.add(rounds)
            rounds.add_done_callback(self._asking.discard)
        return await word

    async def _rounds(self, name: str, key: _Key) -> None:
        while key.waiting:
            await self._ask(name, key)
        key.waiting = None

    async def _ask(self, name: str, key: _Key) -> None:
        assert self.rate is not None
        waiting, key.waiting = key.waiting or [], []
        taken, key.untold = key.untold, 0
        self._untold.discard(name)
        try:
            (stand,) = await self._shared.take(self.rate, [Demand(f"{self._kind}:{name}", taken, len(waiting))])
        except Exception as error:  # whatever the connection raises: the limit goes on here
            self._gone(error)
            granted = min(len(waiting), int(key.left))
            key.left -= granted
            key.wait_seconds = (1 - key.left) / self.rate.per_second
        else:
            granted, key.left, key.at, key.wait_seconds = stand.granted, stand.left, self._clock(), stand.wait_seconds
        for place, word in enumerate(waiting):
            if not word.done():
                word.set_result(place < granted)

    async def _tell_soon(self) -> None:
        await asyncio.sleep(TELL_SECONDS)
        self._telling = None
        await self._tell()

    async def _tell(self) -> None:
        told = [(name, self._keys[name]) for name in self._untold if name in self._keys]
        self._untold.clear()
        demands = [Demand(f"{self._kind}:{name}", key.untold, 0) for name, key in told]
        for _, key in told:
            key.untold = 0
        if self.rate is None or not demands or self._clock() < self._away_until:
            return
        try:
            stands = await self._shared.take(self.rate, demands)
        except Exception as error:  # what was taken stays taken here
            self._gone(error)
            return
        now = self._clock()
        for (_, key), stand in zip(told, stands, strict=True):
            if key.waiting is None:
                key.left, key.at = stand.left - key.untold, now

    def _gone(self, error: Exception) -> None:
        self._away_until = self._clock() + AWAY_SECONDS
        log.warning("smoothing alone", kind=self._kind, error=type(error).__name__)
