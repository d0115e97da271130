"""The simulated Stripe on a port of its own, which a test moves, breaks and looks into."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn

from embedded.stripe.server import Simulator

KEY = "sk_test_simulator"
SECRET = "whsec_tests"


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the tests' process."""
        yield


@contextlib.asynccontextmanager
async def simulated(webhook_url: str | None = None) -> AsyncIterator[Simulator]:
    """Serve a simulator on a free port of the loopback; without `webhook_url` its events stay with it."""
    listener = socket.create_server(("127.0.0.1", 0))
    simulator = Simulator(f"http://127.0.0.1:{listener.getsockname()[1]}", webhook_url, SECRET)
    server = _Server(uvicorn.Config(simulator, lifespan="off", ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        yield simulator
    finally:
        await simulator.close()
        server.should_exit = True
        await serving
        listener.close()
