"""Smoothing: GCRA over a shared server, by its clock; and alone, when that is away (F8, F38)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import pytest

from clients.rates import Rates
from domain.errors import BoundReached
from domain.serving.smoothing import MOST_KEYS, Demand, Rate, Smoother, Stand
from tests.support.servers import Servers

pytestmark = pytest.mark.anyio

SLOW = Rate(per_second=1, burst=20)
"""A request a second: to see how long is left until the next."""
RARE = Rate(per_second=1 / 3600, burst=20)
"""A request an hour: no machine is so slow that the bucket refills meanwhile."""


class Clock:
    """Seconds that pass when a test says so."""

    seconds = 1000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.seconds


class Away:
    """A shared server that cannot be reached; it counts how often that was tried."""

    def __init__(self) -> None:
        self.tried = 0

    async def take(self, rate: Rate, demands: Sequence[Demand]) -> Sequence[Stand]:
        """Be away."""
        self.tried += 1
        raise OSError


@pytest.fixture
async def shared(servers: Servers) -> AsyncIterator[Rates]:
    """The run's Valkey."""
    rates = Rates(servers.redis_url)
    yield rates
    await rates.close()


async def passes(smoother: Smoother, name: str) -> bool:
    """Tell whether a request passes."""
    try:
        await smoother.take(name)
    except BoundReached:
        return False
    return True


async def test_three_processes_share_one_burst(shared: Rates) -> None:
    """F8: far from the end each decides by itself, near it the server decides: of 3 x 30 requests in turns the burst passes, and at most half of it more."""
    name = uuid4().hex
    processes = [Smoother("t", RARE, shared) for _ in range(3)]
    passed = 0
    for _ in range(30):
        for process in processes:
            passed += await passes(process, name)
            await asyncio.sleep(0.01)
    assert 20 <= passed <= 30
    assert [await passes(process, name) for process in processes] == [False] * 3
    for process in processes:
        await process.close()


async def test_at_once_the_server_grants_exactly_the_burst(shared: Rates) -> None:
    """64 requests at once over three processes that know how little is left: what the burst still holds passes, in one round for each process."""
    name = uuid4().hex
    (stand,) = await shared.take(RARE, [Demand(f"t:{name}", 12, 0)])
    assert (stand.granted, stand.left) == (0, 8)
    processes = [Smoother("t", RARE, shared) for _ in range(3)]
    for process in processes:  # one untold request each, so that all learn where it stands
        await process.take(name)
        await process.close()
    passed = sum(await asyncio.gather(*(passes(processes[number % 3], name) for number in range(64))))
    assert passed == 5


async def test_the_refusal_says_when(shared: Rates) -> None:
    """What does not fit is refused with the instant when the next would fit, about a second from now, and `retry-after` follows from it."""
    name = uuid4().hex
    await shared.take(SLOW, [Demand(f"t:{name}", 20, 0)])
    smoother = Smoother("t", SLOW, shared)
    await smoother.take(name)
    await smoother.close()
    with pytest.raises(BoundReached) as refused:
        await smoother.take(name)
    assert refused.value.bound == "t"
    assert refused.value.resets_at is not None


async def test_the_script_is_gcra_by_its_own_clock(shared: Rates) -> None:
    """What was taken counts beyond the burst, what is asked is granted as far as it fits, keys keep apart, and a bucket at rest is forgotten."""
    one, two = uuid4().hex, uuid4().hex
    stands = await shared.take(SLOW, [Demand(one, 0, 25), Demand(two, 25, 5)])
    assert [(stand.granted, stand.left) for stand in stands] == [(20, 0), (0, 0)]
    assert 5 < stands[1].wait_seconds <= 6
    fast = Rate(per_second=10_000, burst=10)
    third = uuid4().hex
    assert (await shared.take(fast, [Demand(third, 0, 10)]))[0].granted == 10
    await asyncio.sleep(0.05)
    assert (await shared.take(fast, [Demand(third, 0, 10)]))[0].granted == 10


async def test_alone_it_is_a_bucket_of_its_own() -> None:
    """Without the server a process lets its own burst through and then its rate, by its clock, and asks the server once a second, not for each request."""
    clock, away = Clock(), Away()
    smoother = Smoother("t", SLOW, away, clock=clock)
    passed = [await passes(smoother, "key") for _ in range(30)]
    assert passed == [True] * 20 + [False] * 10
    assert away.tried == 1
    clock.seconds += 3
    assert [await passes(smoother, "key") for _ in range(5)] == [True] * 3 + [False] * 2
    assert away.tried <= 3
    assert [await passes(smoother, "other") for _ in range(3)] == [True] * 3
    await smoother.close()


async def test_back_again_the_server_decides(shared: Rates) -> None:
    """When the server is back, its count holds again, whatever the process believed alone."""
    clock, name = Clock(), uuid4().hex

    class Flaky:
        here = False

        async def take(self, rate: Rate, demands: Sequence[Demand]) -> Sequence[Stand]:
            if not self.here:
                raise OSError
            return await shared.take(rate, demands)

    flaky = Flaky()
    smoother = Smoother("t", SLOW, flaky, clock=clock)
    assert sum([await passes(smoother, name) for _ in range(30)]) == 20
    await shared.take(SLOW, [Demand(f"t:{name}", 20, 0)])
    flaky.here = True
    clock.seconds += 5  # alone it would let five pass
    assert not await passes(smoother, name)
    await smoother.close()


async def test_ten_thousand_keys_are_one_timer_and_bounded_memory() -> None:
    """F38: 10 000 keys with a window of a second are told together by one task; a process remembers no more than it must."""

    class Counting:
        rounds = 0

        async def take(self, rate: Rate, demands: Sequence[Demand]) -> Sequence[Stand]:
            self.rounds += 1
            return [Stand(demand.asked, 5, 0.0) for demand in demands]

    counting = Counting()
    smoother = Smoother("t", Rate(per_second=10, burst=10), counting)
    before = len(asyncio.all_tasks())
    for number in range(10_000):
        await smoother.take(f"key {number}")
    assert len(asyncio.all_tasks()) <= before + 1
    await smoother.close()
    assert counting.rounds <= 50
    for number in range(10_000, MOST_KEYS + 10_000):
        await smoother.take(f"key {number}")
    assert len(smoother._keys) <= MOST_KEYS
    await smoother.close()


async def test_a_client_that_leaves_stops_nobody_elses_request(shared: Rates) -> None:
    """A request that is cancelled while the server is asked leaves the others their answer."""
    name = uuid4().hex
    smoother = Smoother("t", SLOW, shared)
    await shared.take(SLOW, [Demand(f"t:{name}", 15, 0)])
    await smoother.take(name)
    await smoother.close()
    first, second = asyncio.ensure_future(smoother.take(name)), asyncio.ensure_future(smoother.take(name))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is not None
    await smoother.close()
