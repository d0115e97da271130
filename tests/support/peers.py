"""A server whose every byte a test decides: for clients that must stand anything."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

Serve = Callable[["Peer"], Awaitable[None]]


class Peer:
    """One connection as the server sees it."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self._reader, self._writer = reader, writer

    async def request(self) -> bytes:
        """Read a whole request; raises IncompleteReadError when the client closed instead."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head + await self._reader.readexactly(length)

    async def say(self, *parts: bytes) -> None:
        """Send bytes, in pieces that leave one by one."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            await asyncio.sleep(0.001)

    async def gone(self) -> None:
        """Wait until the client has closed."""
        with contextlib.suppress(OSError):
            while await self._reader.read(65536):
                pass

    def close(self) -> None:
        """Close."""
        self._writer.close()

    def reset(self) -> None:
        """Close with a reset."""
        self._writer.transport.abort()


class Server:
    """A server whose every connection `serve` looks after."""

    def __init__(self, serve: Serve) -> None:
        self.connections = 0
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        peer = Peer(self.connections, reader, writer)
        try:
            await self._serve(peer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            peer.close()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection."""
        task = asyncio.create_task(self._accept(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextlib.asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[str]:
        """Listen, and give the address."""
        server = await asyncio.start_server(self.accept, "127.0.0.1", 0, ssl=tls)
        try:
            yield f"{'https' if tls else 'http'}://{host}:{server.sockets[0].getsockname()[1]}/v1/x"
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
