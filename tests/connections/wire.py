"""Requests as bytes on a socket, for what no client library would send."""

import asyncio
from dataclasses import dataclass

PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The answers that came until the server closed the connection, or fell silent."""

    raw: bytes
    closed: bool

    @property
    def statuses(self) -> list[int]:
        """The status of each answer, in order; the bodies of the tests' answers hold no status lines."""
        return [int(part[:3]) for part in self.raw.split(b"HTTP/1.1 ")[1:]]

    @property
    def body(self) -> bytes:
        """What follows the first head."""
        return self.raw.partition(b"\r\n\r\n")[2]


async def send(port: int, *parts: bytes, pause_seconds: float = 0.0, until_closed: bool = True, quiet_seconds: float = 0.5) -> Answer:
    """Send parts one after another, then read until the server closes, or, without `until_closed`, until it says nothing for a while."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    read = bytearray()
    closed = False
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_seconds)
        while True:
            chunk = await asyncio.wait_for(reader.read(65536), PATIENCE_SECONDS if until_closed else quiet_seconds)
            if not chunk:
                closed = True
                break
            read += chunk
    except ConnectionError:
        closed = True
    except TimeoutError:
        assert not until_closed, f"the server neither answered to the end nor closed; it said {bytes(read)!r}"
    finally:
        writer.close()
    return Answer(bytes(read), closed)


def request(method: bytes = b"GET", target: bytes = b"/healthz", fields: bytes = b"Host: localhost\r\n", body: bytes = b"") -> bytes:
    """Write one request; `fields` are whole header lines."""
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, target, fields, body)
