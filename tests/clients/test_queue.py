"""The queue's client, spoken to a server that accepts and then says nothing."""

import asyncio

import pytest
from redis.exceptions import TimeoutError as RedisTimeoutError

from clients.queue import ArqQueue
from models.ids import uuid7

pytestmark = pytest.mark.anyio


async def test_a_silent_server_is_not_waited_for(anyio_backend: str) -> None:
    """O2: a Valkey that hangs makes a nudge fail, as one that is away does: the row is the memory, and no request waits for it."""
    connected = asyncio.Event()

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    async with server:
        queue = ArqQueue(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(RedisTimeoutError):
            await queue.nudge(uuid7(), 0)
        assert connected.is_set()
        await queue.close()
