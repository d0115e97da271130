"""The counts of smoothing that all processes share, in a Redis-protocol server: one script, by the server's clock, kept no longer than they matter."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from domain.outside import before_calling
from domain.serving.smoothing import Demand, Rate, Stand

CONNECT_SECONDS = 0.5
ANSWER_SECONDS = 0.5
"""A request waits no longer for a server whose loss only makes a limit coarser."""
PREFIX = "tallygate:rate:1:"

SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local told = {}
for i, key in ipairs(KEYS) do
  local taken, asked = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  local arrival = math.max(tonumber(redis.call('GET', key) or 0), now) + taken * interval
  local fits = math.max(0, math.floor((now + burst * interval - arrival) / interval))
  local granted = math.min(asked, fits)
  arrival = arrival + granted * interval
  if taken + granted > 0 then
    redis.call('SET', key, string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000) + 1000)
  end
  told[i] = {granted, fits - granted, math.max(0, arrival + interval - now - burst * interval)}
end
return told
"""
"""GCRA: a key holds its theoretical arrival, in microseconds. What was taken counts though it does not fit; of what is asked, what fits is granted."""


class Rates:
    """Fulfils `domain.serving.smoothing.Shared`; connects when it is first needed."""

    def __init__(self, url: str) -> None:
        pool = ConnectionPool.from_url(url, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=ANSWER_SECONDS, retry=Retry(NoBackoff(), 0))
        self._redis: Any = Redis(connection_pool=pool)
        self._script = self._redis.register_script(SCRIPT)

    async def take(self, rate: Rate, demands: Sequence[Demand]) -> Sequence[Stand]:
        """Count what was taken, grant what fits; one round trip. Raises what redis raises, and never asks twice, because a repeat would count twice."""
        before_calling("the rates")
        amounts = [amount for demand in demands for amount in (demand.taken, demand.asked)]
        told = await self._script(keys=[PREFIX + demand.name for demand in demands], args=[int(1_000_000 / rate.per_second), rate.burst, *amounts])
        return [Stand(granted, left, wait / 1_000_000) for granted, left, wait in told]

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()
