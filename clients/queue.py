"""The queue: ids on their way to a worker, over a Redis-protocol server that may forget them."""

from uuid import UUID

import msgspec
from arq import ArqRedis
from arq.constants import in_progress_key_prefix
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from domain.outside import before_calling

QUEUE_NAME = "tallygate:jobs:1"
"""Its number changes with the contract of what is queued, so that an older worker never eats what it does not know."""
FUNCTION = "run"
MARK_SECONDS = 4 * 3600
"""How long a worker's mark that it is at a job lives, unless it is done with the job before."""
CLAIM_SECONDS = 30
"""How old a mark is when its worker should have claimed the job's row long ago."""
CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0
"""How long a request or a worker waits for the queue, whose loss costs nothing; arq's own `create_pool` bounds the connection, and not the answer."""

encode = msgspec.msgpack.encode
decode = msgspec.msgpack.decode


def worker_connections(url: str) -> ArqRedis:
    """Return a worker's connections to a redis:// or unix:// URL: a server that restarts is waited for, a connection that has gone silent left for another."""
    return _connections(url, Retry(ExponentialBackoff(cap=1, base=0.05), 20))


def _connections(url: str, retry: Retry) -> ArqRedis:
    pool = ConnectionPool.from_url(
        url,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        retry=retry,
        retry_on_error=[RedisConnectionError, RedisTimeoutError, OSError],
    )
    return ArqRedis(pool, job_serializer=encode, job_deserializer=decode, default_queue_name=QUEUE_NAME)


class ArqQueue:
    """Fulfils `domain.duties.Queue`; connects when it is first needed, so that a process starts without the server."""

    def __init__(self, url: str) -> None:
        self._redis = _connections(url, Retry(NoBackoff(), 1))

    async def nudge(self, job_id: UUID, tries: int) -> None:
        """Queue a job's id once for each of its tries; raises what redis raises.

        The row says that nobody has the job. A mark of arq's that somebody is at it, and that is older than CLAIM_SECONDS, was left by a worker that
        ended between the mark and its claim of the row: it would hide the job for as long as the longest may take, and is taken away.
        """
        before_calling("the queue")
        name = f"{job_id}:{tries}"
        if await self._redis.enqueue_job(FUNCTION, str(job_id), _job_id=name, _queue_name=QUEUE_NAME) is None:
            left_ms = await self._redis.pttl(in_progress_key_prefix + name)
            if 0 <= left_ms < (MARK_SECONDS - CLAIM_SECONDS) * 1000:
                await self._redis.delete(in_progress_key_prefix + name)

    async def ping(self) -> None:
        """Raise what redis raises when the server is away, or silent."""
        before_calling("the queue")
        await self._redis.ping()

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()
