"""The memory of the cache doctor, in a Redis-protocol server: values that go by themselves."""

from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from domain.outside import before_calling

CONNECT_SECONDS = 0.5
ANSWER_SECONDS = 0.5
PREFIX = "tallygate:prompt:1:"


class Prompts:
    """Fulfils `domain.usage.cache_doctor.Memory`; connects when it is first needed."""

    def __init__(self, url: str) -> None:
        pool = ConnectionPool.from_url(url, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=ANSWER_SECONDS, retry=Retry(NoBackoff(), 0))
        self._redis: Any = Redis(connection_pool=pool)

    async def get(self, name: str) -> bytes | None:
        """Return a value; raises ConnectionError when the server is away."""
        before_calling("the memory of prompts")
        try:
            value: bytes | None = await self._redis.get(PREFIX + name)
        except (RedisError, OSError) as error:
            raise ConnectionError(type(error).__name__) from None
        return value

    async def put(self, name: str, value: bytes, *, seconds: int) -> None:
        """Keep a value for so long; raises ConnectionError when the server is away."""
        before_calling("the memory of prompts")
        try:
            await self._redis.set(PREFIX + name, value, ex=seconds)
        except (RedisError, OSError) as error:
            raise ConnectionError(type(error).__name__) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()
