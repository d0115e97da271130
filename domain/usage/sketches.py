"""Durations as sketches: counts of buckets that add up across cells, days and keys, and quantiles read from their sum."""

from collections.abc import Iterable, Mapping

from domain.usage.metrics import Quantiles

WIDTH = 1.05
"""Bucket b holds the durations from WIDTH^(b-1) up to WIDTH^b milliseconds, bucket 0 those of nothing; `sketch_bucket_1` says the same."""

Sketch = Mapping[int, int]
"""How many durations fell into each bucket."""


def added(sketches: Iterable[Sketch]) -> dict[int, int]:
    """Return the sketch of all that several hold."""
    total: dict[int, int] = {}
    for sketch in sketches:
        for bucket, count in sketch.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def quantiles(sketch: Sketch) -> Quantiles | None:
    """Return the quantiles of what a sketch holds, each at most 2.5 % off the duration of the nearest rank; None when it holds nothing."""
    total = sum(sketch.values())
    if not total:
        return None
    return Quantiles(*(_value(sketch, (percent * total + 99) // 100) for percent in (50, 90, 95, 99)))


def _value(sketch: Sketch, rank: int) -> float:
    passed = 0
    for bucket in sorted(sketch):
        passed += sketch[bucket]
        if passed >= rank:
            return 2 * WIDTH**bucket / (WIDTH + 1) if bucket else 0.0
    raise AssertionError("a rank is at most the total")
