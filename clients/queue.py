"""The queue: ids on their way to a worker, over a Redis-protocol server that may forget them."""

import asyncio
from uuid import UUID

import msgspec
from arq import ArqRedis, create_pool
from arq.connections import RedisSettings
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from domain.outside import before_calling

QUEUE_NAME = "tallygate:jobs:1"
"""Its number changes with the contract of what is queued, so that an older worker never eats what it does not know."""
FUNCTION = "run"

encode = msgspec.msgpack.encode
decode = msgspec.msgpack.decode


def redis_settings(url: str) -> RedisSettings:
    """Return arq's settings for a redis:// or unix:// URL; a server that restarts is waited for, not died of."""
    settings = RedisSettings.from_dsn(url)
    settings.retry = Retry(ExponentialBackoff(cap=1, base=0.05), 20)
    settings.retry_on_error = [RedisConnectionError, RedisTimeoutError, OSError]
    settings.conn_retries = 2
    return settings


class ArqQueue:
    """Fulfils `domain.duties.Queue`; connects when it is first needed, so that a process starts without the server."""

    def __init__(self, url: str) -> None:
        self._settings = RedisSettings.from_dsn(url)
        self._settings.conn_retries = 0
        self._settings.conn_timeout = 1
        self._pool: ArqRedis | None = None
        self._opening = asyncio.Lock()

    async def nudge(self, job_id: UUID, tries: int) -> None:
        """Queue a job's id once for each of its tries; raises what redis raises."""
        before_calling("the queue")
        pool = await self._open()
        await pool.enqueue_job(FUNCTION, str(job_id), _job_id=f"{job_id}:{tries}", _queue_name=QUEUE_NAME)

    async def ping(self) -> None:
        """Raise what redis raises when the server is away."""
        before_calling("the queue")
        await (await self._open()).ping()

    async def _open(self) -> ArqRedis:
        async with self._opening:  # many may be first at once, and only one pool is closed at the end
            if self._pool is None:
                self._pool = await create_pool(self._settings, job_serializer=encode, job_deserializer=decode, default_queue_name=QUEUE_NAME)
            return self._pool

    async def close(self) -> None:
        """Close the connection."""
        if self._pool is not None:
            await self._pool.aclose()
