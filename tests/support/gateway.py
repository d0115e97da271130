"""A gateway as its users have it: `manage serve` in a process of its own, which a test may kill."""

import asyncio
import os
import socket
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import httpx2

from tests.support import commands

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Gateway:
    """One gateway process; `environment` is all it gets besides PATH. Its log goes to a file."""

    def __init__(self, environment: dict[str, str], log: Path, *, port: int | None = None) -> None:
        self.port = port or free_port()
        self.log = log
        self.environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONWARNINGS": "default",
            **environment,
            "PORT": str(self.port),
            "HOST": "127.0.0.1",
            "TALLYGATE_PUBLIC_URL": f"http://127.0.0.1:{self.port}",
        }
        self._process: ForkServerProcess | None = None

    @property
    def url(self) -> str:
        """The base address, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id, for a test that signals it or looks for what it left."""
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process, without waiting for it."""
        self._process = commands.start(self.environment, self.log, self.log, "serve")

    async def ready(self) -> None:
        """Wait until it answers; raises AssertionError with its log when it ends instead."""
        async with httpx2.AsyncClient(timeout=60) as client:
            for _ in range(START_SECONDS * 20):
                assert self._process is not None
                assert self._process.exitcode is None, self.log.read_text(errors="replace")[-4000:]
                try:
                    if (await client.get(f"{self.url}/healthz")).status_code == 200:
                        return
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.05)
        raise AssertionError(f"the gateway did not start: {self.log.read_text(errors='replace')[-4000:]}")

    def kill(self) -> None:
        """Kill it with -9, as a machine that loses power would."""
        assert self._process is not None
        self._process.kill()
        self._process.join()

    def terminate(self) -> int:
        """Ask it to stop, wait, and return its exit code."""
        assert self._process is not None
        self._process.terminate()
        self._process.join(timeout=60)
        assert self._process.exitcode is not None, "it does not end"
        return self._process.exitcode
