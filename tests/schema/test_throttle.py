"""The rate limit's buckets: filled steadily, emptied by points, one for each caller."""

from hypothesis import given
from hypothesis import strategies as st

from schema.throttle import MOST_CALLERS, Allowance, Throttle

ALLOWANCE = Allowance(limit_points=100, restore_points=10.0)


class Clock:
    """Seconds that pass when a test says so."""

    seconds = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.seconds


def test_points_are_taken_until_none_are_left_and_come_back() -> None:
    """All or none: what does not fit takes nothing, and says when it will fit."""
    clock = Clock()
    throttle = Throttle(clock)
    assert throttle.take("a", 70, ALLOWANCE).remaining_points == 30
    refused = throttle.take("a", 50, ALLOWANCE)
    assert (refused.retry_after_seconds, refused.remaining_points) == (2, 30)
    assert throttle.take("b", 50, ALLOWANCE).retry_after_seconds == 0
    clock.seconds = 2
    taken = throttle.take("a", 50, ALLOWANCE)
    assert (taken.retry_after_seconds, taken.remaining_points, taken.full_in_seconds) == (0, 0, 10.0)


def test_points_that_come_back_never_overfill_a_bucket() -> None:
    """What was not needed returns, up to a full bucket."""
    throttle = Throttle(Clock())
    throttle.take("a", 10, ALLOWANCE)
    throttle.give_back("a", 50, ALLOWANCE)
    throttle.give_back("never seen", 50, ALLOWANCE)
    assert throttle.take("a", 0, ALLOWANCE).remaining_points == 100


@given(st.lists(st.tuples(st.integers(0, 100), st.floats(0, 20)), max_size=40))
def test_nobody_takes_more_than_the_bucket_and_what_came_back(steps: list[tuple[int, float]]) -> None:
    """Over any stretch of time at most the bucket's size and the restored points are granted."""
    clock, granted = Clock(), 0
    throttle = Throttle(clock)
    for points, pause in steps:
        clock.seconds += pause
        if not throttle.take("a", points, ALLOWANCE).retry_after_seconds:
            granted += points
        assert granted <= ALLOWANCE.limit_points + clock.seconds * ALLOWANCE.restore_points + 1e-6


def test_memory_is_bounded_by_forgetting_the_caller_seen_longest_ago() -> None:
    """A flood of addresses does not grow the process."""
    throttle = Throttle(Clock())
    for number in range(MOST_CALLERS + 10):
        throttle.take(str(number), 1, ALLOWANCE)
    assert len(throttle._buckets) == MOST_CALLERS
    assert throttle.take("0", 0, ALLOWANCE).remaining_points == 100
