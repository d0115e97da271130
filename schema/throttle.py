"""The rate limit of GraphQL: a bucket of points for each caller, which refills steadily."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MOST_CALLERS: Final = 10_000


@dataclass(frozen=True)
class Allowance:
    """How large a caller's bucket is (`limit_points`) and how fast it refills (`restore_points`, each second)."""

    limit_points: int
    restore_points: float


MEMBERS: Final = Allowance(limit_points=20_000, restore_points=500.0)
STRANGERS: Final = Allowance(limit_points=2_000, restore_points=50.0)


@dataclass(frozen=True)
class Taken:
    """What a bucket holds after points were taken, or why they were not: then `retry_after_seconds` is above 0."""

    limit_points: int
    remaining_points: int
    restore_points: float
    retry_after_seconds: int

    @property
    def full_in_seconds(self) -> float:
        """Seconds until the bucket is full again."""
        return (self.limit_points - self.remaining_points) / self.restore_points


class Throttle:
    """Token buckets by caller, in this process only: several processes allow several times as much.

    The 10 000 callers seen last are remembered; a forgotten one starts full.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep buckets by the seconds that `clock` tells."""
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str, points: int, allowance: Allowance) -> Taken:
        """Take points from the caller's bucket, all or none."""
        now = self._clock()
        held, since = self._buckets.pop(caller, (float(allowance.limit_points), now))
        held = min(float(allowance.limit_points), held + (now - since) * allowance.restore_points)
        lacking = min(points, allowance.limit_points) - held
        if lacking <= 0:
            held -= points
        self._buckets[caller] = (held, now)
        if len(self._buckets) > MOST_CALLERS:
            self._buckets.popitem(last=False)
        wait = math.ceil(lacking / allowance.restore_points) if lacking > 0 else 0
        return Taken(allowance.limit_points, max(0, math.floor(held)), allowance.restore_points, wait)

    def give_back(self, caller: str, points: int, allowance: Allowance) -> None:
        """Return points that were taken and not needed, never beyond a full bucket."""
        if caller in self._buckets:
            held, since = self._buckets[caller]
            self._buckets[caller] = (min(float(allowance.limit_points), held + points), since)
